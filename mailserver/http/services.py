"""What answers are made from; a new one at each reload."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from attrs import field, frozen

from mailserver.config.model import Config
from mailserver.http.messages import Request, Status

DISCOVERY_LABELS: Final = ("autoconfig", "autodiscover", "mta-sts")
"""What clients and mail servers put before a mail domain."""


@frozen
class Trust:
    """An authority whose certificate people are to import."""

    name: str
    der: bytes
    """Its certificate."""
    not_after: dt.datetime
    crl: bytes = b""
    """Its revocation list, DER; empty without one."""
    crl_not_after: dt.datetime | None = None
    """When a new list is due."""


@frozen
class HttpServices:
    """For all sessions of a process."""

    config: Config
    query_status: Callable[[], Awaitable[Status]]
    """The numbers of all workers. Raises: MailError where nobody tells them in time."""
    sign: Callable[[str, bytes], bytes]
    """Octets signed under the certificate of a host; as they are where that cannot be."""
    trust: Callable[[], Trust | None]
    """One's own authority, that `[tls] private_ca` names."""
    fingerprint: Callable[[str], str]
    """SHA-256 of the certificate that a host is served under, hexadecimal; "" where there is none."""
    _names: frozenset[str] = field(init=False, repr=False)
    """All under which this server may be asked, those of wildcards as they are written."""

    @_names.default
    def _all_names(self) -> frozenset[str]:
        config = self.config
        domains = [domain.name for domain in config.domains]
        own = [f"{label}.{domain}" for label in DISCOVERY_LABELS for domain in domains]
        hosts = [host for certified in config.certified for host in certified.hosts]
        return frozenset(("localhost", config.server.hostname, *domains, *own, *hosts))

    def may_watch(self, request: Request) -> bool:
        """May its client see metrics and health? Programs behind a Unix socket may; who comes by a proxy is not known."""
        peer = request.peer
        if request.forwarded or peer is None:
            return not request.forwarded
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in ip_network(network) for network in self.config.http.metrics_from)

    def is_host(self, name: str) -> bool:
        """May this server be asked under that name? Else a page of another site asks it in its reader's name."""
        return not name or not self._names.isdisjoint((name, f"*.{name.partition('.')[2]}")) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
