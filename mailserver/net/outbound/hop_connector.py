"""Opens sessions of the queue at a place: connection, greeting, EHLO, TLS as demanded, login."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet.protocol import Factory

from mailserver.config.model.outbound import Route
from mailserver.errors import RelayDown
from mailserver.net.connection.coroutines import abandonable
from mailserver.net.log.events import log_warning
from mailserver.net.outbound.dialer import (
    CONNECTING_FAILURES,
    HopProtocol,
    NextHopDialer,
    connecting_failed,
    endpoint_for,
)
from mailserver.net.outbound.place import Place
from mailserver.net.transport.stock import Transports
from mailserver.queue.outcome import Outcome, outcome_of_silence, refused_here
from mailserver.smtp.onward import OnwardExchange, TLSUse
from mailserver.smtp.onward_transaction import ANSWER_TIME, OnwardSession
from mailserver.tls.client import any_certificate_creator, client_creator, valid_certificate_creator
from mailserver.tls.keypair.pair import BadPair


class HopConnector:
    """Connects to routes' hops and to hosts of domains. `hostname` is our name in EHLO."""

    def __init__(self, reactor: Any, transports: Transports, hostname: str) -> None:
        self.cleartext_retries = 0
        """Connections that were made once more in clear text, as the TLS handshake has failed."""
        self._reactor = reactor
        self._transports = transports
        self._hostname = hostname
        self._dialers: dict[Route, NextHopDialer] = {}

    async def open(self, place: Place) -> OnwardSession | Outcome:
        """Return an open session, or why there is none."""
        if place.route is not None:
            return await self._open_route(place, place.route)
        use: TLSUse = "offered" if place.tls == "opportunistic" else "required"
        session = await self._open_host(place, use)
        if use == "offered" and isinstance(session, Outcome) and session.stage == "starttls":
            # Mail that may go in clear text does not wait for somebody to mend the host's TLS (RFC 7435 3).
            log_warning("hop-tls-failed", hop=place.name, reason=session.text)
            self.cleartext_retries += 1
            session = await self._open_host(place, "never")
        return session

    async def _open_route(self, place: Place, route: Route) -> OnwardSession | Outcome:
        try:
            dialer = self._dialer(route)
        except (OSError, BadPair) as error:
            return evolve(refused_here("4.3.5", f"the route cannot be used: {error}", place.name), result="hop_failed")
        try:
            connection = await dialer.connect()
        except RelayDown as error:
            return outcome_of_silence("connect", error.reason, hop=place.name)
        use: TLSUse = "required" if route.tls == "starttls" else "never"
        return await self._greet(
            place, connection, OnwardExchange(self._hostname, tls=use, credentials=dialer.credentials)
        )

    def _dialer(self, route: Route) -> NextHopDialer:
        """Raises: OSError, BadPair if a file of the route cannot be used."""
        found = self._dialers.get(route)
        if found is None:
            found = NextHopDialer(self._reactor, route, client_creator(route), self._transports)
            self._dialers[route] = found
        return found

    async def _open_host(self, place: Place, use: TLSUse) -> OnwardSession | Outcome:
        name = place.host or place.address
        creator = valid_certificate_creator(name) if place.tls == "verified" else any_certificate_creator(name)
        factory = Factory.forProtocol(
            cast(
                "Any",
                lambda: HopProtocol(self._reactor, creator, place.name, ANSWER_TIME, self._transports.take_connection),
            )
        )
        factory.noisy = False
        endpoint = endpoint_for(self._reactor, place.address, place.port)
        try:
            connection = cast("HopProtocol", await abandonable(endpoint.connect(factory)))
        except CONNECTING_FAILURES as error:
            failure = connecting_failed(place.name, error)
            return outcome_of_silence("connect", failure.reason, hop=place.name)
        return await self._greet(place, connection, OnwardExchange(self._hostname, tls=use, found_by_mx=True))

    async def _greet(self, place: Place, connection: HopProtocol, exchange: OnwardExchange) -> OnwardSession | Outcome:
        session = OnwardSession(exchange, connection, place.name)
        try:
            failure = await session.open()
        except BaseException:
            connection.abort()
            raise
        return failure or session
