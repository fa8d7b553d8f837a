"""A place that mail is sent to: an address and port, with what a connection there demands."""

from __future__ import annotations

from typing import Final, Literal

from attrs import evolve, frozen

from mailserver.config.model.outbound import Route, TLSPolicy

SMTP_PORT: Final = 25


@frozen
class PoolKey:
    """What connections must have in common to be one for the other."""

    address: str
    port: int
    demands: TLSPolicy | Route


@frozen
class Place:
    """A hop, or one address of a host of a domain."""

    address: str
    """An IP address; for a route also a host name."""
    port: int
    host: str = ""
    """The host's name in the MX record, or the route's; empty for an address literal."""
    tls: TLSPolicy | Literal["route"] = "opportunistic"
    """TLS to a host of a domain; `route`: as its route says."""
    route: Route | None = None
    """The route that leads here, without its domains; None: the DNS."""

    @property
    def name(self) -> str:
        """For logs and reports: `mx.example.net[192.0.2.1]`, with the port if it is not that of SMTP."""
        name = f"{self.host}[{self.address}]" if self.host != self.address else self.address
        return name if self.port == SMTP_PORT else f"{name}:{self.port}"

    @property
    def key(self) -> PoolKey:
        """Connections with equal keys serve the same mail."""
        if self.route is not None:
            return PoolKey(self.address, self.port, self.route)
        # A verified certificate is one for that name: what another host's connection has shown does not count.
        address = f"{self.address} {self.host}" if self.tls == "verified" else self.address
        assert self.tls != "route"
        return PoolKey(address, self.port, self.tls)


def place_of(route: Route) -> Place:
    """The place of a route. Routes that differ in their domains alone have one."""
    hop = evolve(route, sender_domains=(), recipient_domains=())
    return Place(route.host, route.port, route.host, "route", hop)
