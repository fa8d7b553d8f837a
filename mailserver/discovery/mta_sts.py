"""The MTA-STS policy of a domain (RFC 8461 3.2), and its identifier for the TXT record (RFC 8461 3.1)."""

from __future__ import annotations

import hashlib

from mailserver.config.model import Domain


def policy(domain: Domain) -> bytes | None:
    """Make the policy document; None if the domain has no policy."""
    if domain.mta_sts is None:
        return None
    lines = ["version: STSv1", f"mode: {domain.mta_sts.mode}", *(f"mx: {host}" for host in domain.mx)]
    lines.append(f"max_age: {domain.mta_sts.max_age}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def policy_id(octets: bytes) -> str:
    """Return at most 32 letters and digits that change with the policy."""
    return hashlib.sha256(octets).hexdigest()[:32]
