"""Where a TXT record for an ACME authority has to stand: behind the CNAMEs at its name, as the authority follows them.

So a zone that takes no updates can point `_acme-challenge` at one that does (RFC 8555 8.4, RFC 1034 3.6.2).
"""

from __future__ import annotations

from typing import Final

import dns.exception
import dns.name
import dns.resolver

MOST: Final = 8
"""CNAMEs in a row."""
PATIENCE: Final = 10.0
"""Seconds for each answer."""


class CannotFollow(Exception):
    """Where it stands cannot be told; the text says why."""


def target(record: str, resolver: str | None, port: int) -> str:
    """The name at the end, without a last dot; `resolver`: an address, or None for the system's. Raises: CannotFollow."""
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
        raise CannotFollow(f"whether {record} is an alias cannot be told: {error or type(error).__name__}") from error
    raise CannotFollow(f"{record} leads through more than {MOST} aliases (CNAME)")
