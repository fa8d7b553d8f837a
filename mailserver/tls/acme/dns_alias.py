"""The name at which a TXT record for an ACME authority must be set, after all CNAMEs.

A zone that takes no updates can point `_acme-challenge` at one that does (RFC 8555 8.4, RFC 1034 3.6.2).
"""

from __future__ import annotations

from typing import Final

import dns.exception
import dns.name
import dns.resolver

MOST: Final = 8
"""Maximum number of CNAMEs in a row."""
PATIENCE: Final = 10.0
"""Timeout of each query, in seconds."""


class AliasNotResolved(Exception):
    """The CNAMEs cannot be followed; the text says why."""


def target(record: str, resolver: str | None, port: int) -> str:
    """Follow CNAMEs to the last name, without its final dot.

    `resolver` is an address, or None for the system's. Raises: AliasNotResolved.
    """
    try:
        asked = dns.resolver.Resolver(configure=resolver is None)
        if resolver is not None:
            asked.nameservers, asked.port = [resolver], port
        asked.lifetime = PATIENCE
        name = dns.name.from_text(record)
        for _step in range(MOST + 1):
            try:
                answer = asked.resolve(name, "CNAME", search=False)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                return name.to_text(omit_final_dot=True)
            name = answer[0].target
    except dns.exception.DNSException as error:
        raise AliasNotResolved(f"the CNAME of {record} cannot be looked up: {error or type(error).__name__}") from error
    raise AliasNotResolved(f"{record} has more than {MOST} CNAMEs in a row")
