"""The objects that answers are made from, replaced at each reload."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from attrs import field, frozen

from mailserver.config.model import Config
from mailserver.http.messages import Request, Status

DISCOVERY_LABELS: Final = ("autoconfig", "autodiscover", "mta-sts")
"""Labels that clients and mail servers put before a mail domain."""


@frozen
class PublishedAuthority:
    """The authority that people are to import."""

    name: str
    der: bytes
    """Its certificate."""
    not_after: dt.datetime
    crl: bytes = b""
    """Its revocation list, DER; empty without one."""
    crl_not_after: dt.datetime | None = None
    """When the next list is due."""


@frozen
class HttpServices:
    """Shared by all sessions of a process."""

    config: Config
    query_status: Callable[[], Awaitable[Status]]
    """Ask all workers for the numbers. Raises: MailError if they do not respond in time."""
    sign: Callable[[str, bytes], bytes]
    """Sign octets with the certificate of a host; return them unsigned if that is impossible."""
    authority: Callable[[], PublishedAuthority | None]
    """Return the authority that `[tls] private_ca` names, if any."""
    fingerprint: Callable[[str], str]
    """Return the SHA-256 of a host's certificate, hexadecimal; "" if there is none."""
    _names: frozenset[str] = field(init=False, repr=False)
    """All names of this server; wildcards as configured."""

    @_names.default
    def _all_names(self) -> frozenset[str]:
        config = self.config
        domains = [domain.name for domain in config.domains]
        own = [f"{label}.{domain}" for label in DISCOVERY_LABELS for domain in domains]
        hosts = [host for each in config.domains_and_sites for host in each.hosts]
        return frozenset(("localhost", config.server.hostname, *domains, *own, *hosts))

    def may_monitor(self, request: Request) -> bool:
        """May this client see metrics and health? Unix sockets may; clients behind a proxy are unknown and may not."""
        peer = request.peer
        if request.forwarded or peer is None:
            return not request.forwarded
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in ip_network(network) for network in self.config.http.metrics_from)

    def is_host(self, name: str) -> bool:
        """Is it one of this server's names? If not, another site's page may be abusing its reader's browser."""
        return not name or not self._names.isdisjoint((name, f"*.{name.partition('.')[2]}")) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
