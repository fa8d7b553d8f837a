"""The MTA-STS policy of a domain (RFC 8461 3.2) and the identity that its TXT record carries (RFC 8461 3.1)."""

from __future__ import annotations

import hashlib

from mailserver.config.model import Domain


def policy(domain: Domain) -> bytes | None:
    """The policy as it is served; None where the domain has none."""
    if domain.mta_sts is None:
        return None
    lines = ["version: STSv1", f"mode: {domain.mta_sts.mode}", *(f"mx: {host}" for host in domain.mx)]
    lines.append(f"max_age: {domain.mta_sts.max_age}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def policy_id(octets: bytes) -> str:
    """Letters and digits that change with the policy, at most 32."""
    return hashlib.sha256(octets).hexdigest()[:32]
