"""Dialling the next hop: resolved and connected by Twisted, TLS verified for its host name before a byte is said."""

from __future__ import annotations

from contextlib import suppress
from socket import IPPROTO_TCP, TCP_QUICKACK, socket
from typing import Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IPushProducer,
    IReactorTime,
    ISystemHandle,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.config.model import Relay
from mailserver.errors import Cancelled, RelayDown
from mailserver.net.connection.coroutines import AbandonableDeferred, abandonable
from mailserver.net.fast.reactor_turn import prefer
from mailserver.net.log.events import log_warning
from mailserver.net.transport.tls import StockTlsFactory
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret

CONNECT_TIME = 30.0
HANDSHAKE_TIME = 30.0
CLOSING_TIME = 30.0
RESTING_TIME = 10.0
"""Seconds for which a connection is kept for the next message."""
READ_AHEAD = 65536
JOINED = 65536
"""Octets that are joined to one write."""


@implementer(IHandshakeListener, IPushProducer)
class HopProtocol(Protocol):
    """One connection to the hop: a `smtp.hop.HopConnection`. One coroutine uses it."""

    def __init__(self, clock: IReactorTime, tls: IOpenSSLClientConnectionCreator, name: str, timeout: float) -> None:
        self._clock = clock
        self._tls = tls
        self._name = name
        self._timeout = timeout
        self._asked = 0.0
        """When a reply was first waited for."""
        self._input = bytearray()
        self._output: list[bytes] = []
        self._unsent = 0
        """Octets in `_output`."""
        self._choked = False
        self._socket: socket | None = None
        self._secure = False
        self._lost: Failure | None = None
        self._closing: IDelayedCall | None = None
        self._resting: IDelayedCall | None = None
        self._waiting: Deferred[None] | None = None

    # --- What Twisted calls

    def connectionMade(self) -> None:
        """Connected."""
        transport = cast("Any", self.transport)
        # Beneath TLS, if that was there first.
        tcp = getattr(transport, "transport", transport)
        if ISystemHandle.providedBy(tcp):
            self._socket = cast("socket", tcp.getHandle())
            prefer(tcp)
        transport.registerProducer(self, True)

    def handshakeCompleted(self) -> None:
        """TLS is up and the certificate is the right one."""
        self._secure = True
        self._wake()

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the hop; the session asks after each reply, so what waits is small or not SMTP."""
        self._input += data
        if len(self._input) > READ_AHEAD:
            cast("Any", self.transport).abortConnection()
        self._wake()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 - as in Twisted
        """The end."""
        self._lost = reason
        self._stir()
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._wake()

    def pauseProducing(self) -> None:
        """Its transport is full."""
        self._choked = True

    def resumeProducing(self) -> None:
        """It has room again."""
        self._choked = False
        self._wake()

    def stopProducing(self) -> None:
        """The transport is about to be lost."""
        self._choked = False

    # --- What the transaction calls

    async def read(self, timeout: float, *, goes_on: bool = False) -> bytes:
        """The next bytes. Raises: RelayDown."""
        self._flush()
        if not goes_on:
            self._asked = self._clock.seconds()
        await self._until(lambda: bool(self._input), self._asked + timeout - self._clock.seconds())
        data = bytes(self._input)
        self._input.clear()
        return data

    def write(self, data: bytes) -> None:
        """Queue bytes; dropped once the hop is gone."""
        self._stir()
        if self._lost is None:
            self._output.append(data)
            self._unsent += len(data)

    async def drain(self) -> None:
        """Wait for room where there is much to send. Raises: RelayDown."""
        if self._unsent >= JOINED:
            self._flush()
        await self._until(lambda: not self._choked, self._timeout)

    def _flush(self) -> None:
        data = b"".join(self._output)
        self._output.clear()
        self._unsent = 0
        if data and self._lost is None:
            cast("Any", self.transport).write(data)
            # Of what comes next: a hop that answers pipelined commands one by one may wait for that (RFC 9293 3.7.4).
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)

    async def start_tls(self) -> None:
        """Shake hands. Bytes that came before are an injection and end it. Raises: RelayDown."""
        if self._input:
            self._fail("bytes arrived behind the reply to STARTTLS")
        self._flush()
        transport = cast("Any", self.transport)
        transport.unregisterProducer()
        layer = StockTlsFactory(self._tls, self._clock, is_client=True).wrap(self, transport)
        self.transport = cast("Any", layer)
        layer.registerProducer(self, True)
        await self._until(lambda: self._secure, HANDSHAKE_TIME)

    async def secured(self) -> None:
        """Wait for the handshake of implicit TLS. Raises: RelayDown."""
        await self._until(lambda: self._secure, HANDSHAKE_TIME)

    @property
    def alive(self) -> bool:
        """May a command be said?"""
        return self._lost is None and self._closing is None and not self._input

    def rest(self) -> None:
        """Nothing is to be said for now: QUIT after a while."""
        self._resting = self._clock.callLater(RESTING_TIME, self._retire)

    def _retire(self) -> None:
        self._resting = None
        if self.alive:
            self.write(b"QUIT\r\n")
        self.close()

    def _stir(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None:
            resting.cancel()

    def close(self) -> None:
        """Send what is queued and go; what the hop does not take in time is dropped."""
        self._stir()
        if self._lost is None and self._closing is None:
            self._flush()
            transport = cast("Any", self.transport)
            transport.unregisterProducer()
            transport.loseConnection()
            self._closing = self._clock.callLater(CLOSING_TIME, transport.abortConnection)

    async def _until(self, condition: Any, timeout: float) -> None:
        deadline = self._clock.seconds() + timeout
        while not condition():
            if self._lost is not None:
                self._fail(self._lost.getErrorMessage())
            left = deadline - self._clock.seconds()
            if left <= 0:
                cast("Any", self.transport).abortConnection()
                self._fail("no answer in time")
            waiting: Deferred[None] = AbandonableDeferred()
            self._waiting = waiting
            timer = self._clock.callLater(left, self._wake)
            try:
                await waiting
            except Cancelled:
                # The session ends: whether the hop has taken the message is not known.
                cast("Any", self.transport).abortConnection()
                raise
            finally:
                if timer.active():
                    timer.cancel()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def _fail(self, why: str) -> None:
        log_warning("relay-down", hop=self._name, reason=why)
        raise RelayDown


class Outbound:
    """The configured next hop: a `smtp.hop.NextHop`."""

    def __init__(self, reactor: Any, relay: Relay, tls: IOpenSSLClientConnectionCreator) -> None:
        """Raises: OSError when the password file cannot be read."""
        self._reactor = reactor
        self._relay = relay
        self._tls = tls
        self.name = f"{relay.host}:{relay.port}"
        self.starttls = relay.tls == "starttls"
        self.timeout = relay.timeout
        self.credentials: Credentials | None = None
        if relay.user and relay.password_file is not None:
            password = relay.password_file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
            self.credentials = Credentials(relay.user, Secret(password))

    def _endpoint(self) -> Any:
        host, port = self._relay.host, self._relay.port
        # An address needs no resolver, nor tries of one address after another: that is most of what dialling costs.
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port, timeout=int(CONNECT_TIME))
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port, timeout=int(CONNECT_TIME))
        return HostnameEndpoint(self._reactor, host.encode("ascii"), port, timeout=CONNECT_TIME)

    async def connect(self) -> HopProtocol:
        """Dial; with implicit TLS the handshake is done. Raises: RelayDown."""
        relay = self._relay
        endpoint = self._endpoint()
        factory = Factory.forProtocol(
            cast("Any", lambda: HopProtocol(self._reactor, self._tls, self.name, relay.timeout))
        )
        factory.noisy = False
        try:
            if relay.tls == "implicit":
                layer = await abandonable(
                    endpoint.connect(StockTlsFactory(self._tls, self._reactor, is_client=True, above=factory))
                )
                connection = cast("HopProtocol", layer.wrappedProtocol)
            else:
                connection = cast("HopProtocol", await abandonable(endpoint.connect(factory)))
        except (ConnectError, ConnectionClosed, ConnectingCancelledError, OSError) as error:
            log_warning("relay-down", hop=self.name, reason=str(error) or repr(error))
            raise RelayDown from error
        if relay.tls == "implicit":
            await connection.secured()
        return connection
