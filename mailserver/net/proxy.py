"""The PROXY protocol, version 1 and 2, from the networks that a listener trusts. Twisted reads the header.

A connection from a trusted network must begin with a header, which names the real client; from anywhere else it is
served as it is, so that nobody else can claim an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory


class TrustingFactory(Factory):
    """Chooses by the peer whether a PROXY header is expected."""

    noisy = False

    def __init__(self, factory: Factory, trusted: Sequence[str]) -> None:
        self._plain = factory
        self._proxied = HAProxyWrappingFactory(factory)
        self._trusted: list[IPv4Network | IPv6Network] = [ip_network(network, strict=False) for network in trusted]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """With or without the header's reader in front."""
        host = getattr(addr, "host", None)
        if host is None:
            return self._plain.buildProtocol(addr)
        peer = ip_address(host.partition("%")[0])
        if any(peer in network for network in self._trusted):
            return self._proxied.buildProtocol(addr)
        return self._plain.buildProtocol(addr)
