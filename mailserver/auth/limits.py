"""Restrictions of one user: protocols and networks of its logins, and its quota."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from attrs import frozen

from mailserver.types import Quota

LOCAL_NETWORK: Final = "local"
"""The network of clients without an address: those of a Unix socket."""


@frozen
class Limits:
    """Restrictions of one user."""

    networks: tuple[str, ...] | None = None
    """Networks and addresses that the user may log in from; LOCAL_NETWORK for Unix sockets. A malformed one matches nobody.
    None: all networks."""
    quota: Quota = Quota()
    """Limits of the user's own; where it says nothing, those of the configuration hold."""
    protocols: frozenset[str] | None = None
    """Protocols that the user may log in by: "imap", "pop3", "submission". None: all."""
    password_protocols: frozenset[str] | None = None
    """Protocols that the main password works for. None: all. App passwords have their own."""

    def allow_protocol(self, protocol: str, *, by_password: bool) -> bool:
        """May the user log in by that protocol, by its main password or in another way?"""
        if self.protocols is not None and protocol not in self.protocols:
            return False
        return not by_password or self.password_protocols is None or protocol in self.password_protocols

    def allows(self, peer: IPv4Address | IPv6Address | None) -> bool:
        """May the user log in from that address? An IPv4-mapped address counts as IPv4; None is a Unix socket."""
        if self.networks is None:
            return True
        if isinstance(peer, IPv6Address):
            # The zone of a link-local address is no part of its network.
            peer = peer.ipv4_mapped or IPv6Address(int(peer))
        for text in self.networks:
            if peer is None:
                if text == LOCAL_NETWORK:
                    return True
                continue
            try:
                network = ip_network(text, strict=False)
            except ValueError:
                continue
            if peer in network:
                return True
        return False
