"""The way of a recipient: a route by the sender's and the recipient's domain, the hosts of the domain, or none.

It stands in `queue`, as a destination's key is part of the queue's rows: sessions write it, the process that delivers and
the commands read it. The key only groups recipients that wait for the same hop. The way itself is found anew at each try, so
that mail that waits takes the configuration in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen

from mailserver.config.kinds import HostName
from mailserver.config.model.outbound import Delivery, Route, TLSPolicy
from mailserver.errors import RelayRefused

RELAY: Final = "relay:"
"""How the key of a route's hop begins; no domain and no address literal has a colon so early."""


@frozen
class Way:
    """Where a recipient's mail goes."""

    key: str
    """The destination in the queue's rows. Two routes to one hop with one login share it."""
    route: Route | None
    """The hop; None: the hosts of `domain`."""
    domain: str
    """The recipient's domain: a name in ASCII and lower case, or an address literal."""
    tls: TLSPolicy = "opportunistic"
    """TLS to the hosts of the domain; a route says it itself."""


def key_of(route: Route) -> str:
    """The key of a route's hop: `relay:HOST:PORT`, with its login before the host."""
    login = f"{route.user}@" if route.user else ""
    return f"{RELAY}{login}{route.host}:{route.port}"


class Routes:
    """The routes of a configuration. Looking one up costs the same however many there are.

    A route for both domains goes before one for the sender's, that before one for the recipient's, and one for any mail comes
    last; among equals the first of the configuration.
    """

    def __init__(self, routes: Iterable[Route], delivery: Delivery) -> None:
        self._mx = delivery.mx
        self._by_domains: dict[tuple[str, str], Route] = {}
        for route in routes:
            for sender in route.sender_domains or (HostName(""),):
                for recipient in route.recipient_domains or (HostName(""),):
                    self._by_domains.setdefault((sender.lower(), recipient.lower()), route)
        self._tls: Mapping[str, TLSPolicy] = {
            domain.lower(): each.policy for each in reversed(delivery.tls) for domain in each.domains
        }

    def find(self, sender_domain: str, recipient_domain: str) -> Way:
        """Return the way of a recipient.

        The domains are names in ASCII or address literals; the sender's is empty for the null sender. Raises: RelayRefused.
        """
        sender, recipient = sender_domain.lower(), recipient_domain.lower()
        if not recipient:
            raise RelayRefused("an address without a domain leads nowhere")
        for key in dict.fromkeys([(sender, recipient), (sender, ""), ("", recipient), ("", "")]):
            route = self._by_domains.get(key)
            if route is not None:
                return Way(key_of(route), route, recipient)
        if not self._mx:
            raise RelayRefused("no route leads to that domain, and mail is not delivered to the hosts of domains")
        return Way(recipient, None, recipient, self._tls.get(recipient, "opportunistic"))
