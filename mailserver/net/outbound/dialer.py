"""Dial the next hop. Twisted resolves and connects; TLS is verified for the hop's host name before the first command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from socket import IPPROTO_TCP, TCP_QUICKACK, socket
from typing import Any, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
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
from mailserver.net.log.events import log_warning
from mailserver.net.transport.stock import Transports
from mailserver.net.transport.tls import StockTlsFactory
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret

CONNECT_TIME = 30.0
HANDSHAKE_TIME = 30.0
CLOSING_TIME = 30.0
IDLE_TIME = 10.0
"""Seconds that a connection is kept for the next message."""
READ_AHEAD = 65536
WRITE_SIZE = 65536
"""Octets that are collected for one write."""
CONNECTING_FAILURES = (ConnectError, ConnectionClosed, ConnectingCancelledError, OSError)
"""Exceptions of an endpoint that cannot connect."""


@implementer(IHandshakeListener, IPushProducer)
class HopProtocol(Protocol):
    """One connection to the hop (`smtp.hop.HopConnection`). One coroutine uses it at a time."""

    def __init__(
        self,
        clock: IReactorTime,
        tls: IOpenSSLClientConnectionCreator,
        name: str,
        timeout: float,
        take_connection: Callable[[Any, Any, Any], Any] = lambda transport, _protocol, _reactor: transport,
    ) -> None:
        """`take_connection` is that of `Transports`."""
        self._clock = clock
        self._take_connection = take_connection
        self._tls = tls
        self._name = name
        self._timeout = timeout
        self._waiting_since = 0.0
        """When the wait for the present reply began."""
        self._input = bytearray()
        self._output: list[bytes] = []
        self._unsent = 0
        """Octets in `_output`."""
        self._is_paused = False
        self._socket: socket | None = None
        self._is_encrypted = False
        self._lost: Failure | None = None
        self._closing: IDelayedCall | None = None
        self._is_idle = False
        self._deadline: float | None = None
        """When the present wait, or the idle time, ends."""
        self._timer: IDelayedCall | None = None
        """Kept from one deadline to the next, and set anew only for an earlier one."""
        self._waiting: Deferred[None] | None = None

    # --- What Twisted calls

    def connectionMade(self) -> None:
        """See IProtocol."""
        transport = self.transport = self._take_connection(self.transport, self, self._clock)
        if ISystemHandle.providedBy(transport):
            self._socket = cast("socket", transport.getHandle())
        transport.registerProducer(self, True)

    def handshakeCompleted(self) -> None:
        """TLS is established and the certificate verified."""
        self._is_encrypted = True
        self._wake()

    def dataReceived(self, data: bytes) -> None:
        """Collect what the hop sends. A session reads each reply before its next command, so much unread input is not SMTP."""
        self._input += data
        if len(self._input) > READ_AHEAD:
            cast("Any", self.transport).abortConnection()
        self._wake()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 - as in Twisted
        """See IProtocol."""
        self._lost = reason
        self._is_idle = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._wake()

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self._is_paused = False
        self._wake()

    def stopProducing(self) -> None:
        """The transport closes."""
        self._is_paused = False

    # --- What the SMTP transaction calls

    async def read(self, timeout: float, *, goes_on: bool = False) -> bytes:
        """Return the next octets. `goes_on`: they belong to the reply that is waited for already. Raises: RelayDown."""
        self._flush()
        if not goes_on:
            self._waiting_since = self._clock.seconds()
        if not self._input:
            await self._wait_until(lambda: bool(self._input), self._waiting_since + timeout)
        data = bytes(self._input)
        self._input.clear()
        return data

    def write(self, data: bytes) -> None:
        """Queue octets; they are dropped once the connection is lost."""
        self._is_idle = False
        if self._lost is None:
            self._output.append(data)
            self._unsent += len(data)

    async def drain(self) -> None:
        """Send a full buffer and wait until the transport has room. Raises: RelayDown."""
        if self._unsent >= WRITE_SIZE:
            self._flush()
        if self._is_paused:
            await self._wait_until(lambda: not self._is_paused, self._clock.seconds() + self._timeout)

    def _flush(self) -> None:
        data = b"".join(self._output)
        self._output.clear()
        self._unsent = 0
        if data and self._lost is None:
            cast("Any", self.transport).write(data)
            # Acknowledge the reply at once: a hop that answers pipelined commands one by one may wait for it (RFC 9293 3.7.4).
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)

    async def start_tls(self) -> None:
        """Perform the handshake. Octets that came before it are an injection and end the connection. Raises: RelayDown."""
        if self._input:
            self._fail("bytes arrived behind the reply to STARTTLS")
        self._flush()
        transport = cast("Any", self.transport)
        transport.unregisterProducer()
        layer = StockTlsFactory(self._tls, self._clock, is_client=True).wrap(self, transport)
        self.transport = cast("Any", layer)
        layer.registerProducer(self, True)
        await self._wait_until(lambda: self._is_encrypted, self._clock.seconds() + HANDSHAKE_TIME)

    @property
    def is_usable(self) -> bool:
        """See HopConnection."""
        return self._lost is None and self._closing is None and not self._input

    def become_idle(self) -> None:
        """See HopConnection."""
        self._is_idle = True
        self._set_deadline(self._clock.seconds() + IDLE_TIME)

    def abort(self) -> None:
        """See HopConnection."""
        if self._lost is None:
            cast("Any", self.transport).abortConnection()

    def _end_idle(self) -> None:
        if self.is_usable:
            self.write(b"QUIT\r\n")
        self.close()

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        timer = self._timer
        if timer is None or timer.getTime() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._clock.callLater(max(0.0, deadline - self._clock.seconds()), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self._waiting is None and not self._is_idle:
            return
        assert self._deadline is not None
        if self._clock.seconds() < self._deadline:
            self._set_deadline(self._deadline)
        elif self._is_idle:
            self._end_idle()
        else:
            self._wake()

    def close(self) -> None:
        """Send what is queued and close; what the hop does not take in CLOSING_TIME is dropped."""
        self._is_idle = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lost is None and self._closing is None:
            self._flush()
            transport = cast("Any", self.transport)
            transport.unregisterProducer()
            transport.loseConnection()
            self._closing = self._clock.callLater(CLOSING_TIME, transport.abortConnection)

    async def _wait_until(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition():
            if self._lost is not None:
                self._fail(self._lost.getErrorMessage())
            if self._clock.seconds() >= deadline:
                cast("Any", self.transport).abortConnection()
                self._fail("no answer in time")
            waiting: Deferred[None] = AbandonableDeferred()
            self._waiting = waiting
            self._set_deadline(deadline)
            try:
                await waiting
            except (Cancelled, CancelledError):
                # The session ends: whether the hop has accepted the message is unknown.
                cast("Any", self.transport).abortConnection()
                raise

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def _fail(self, why: str) -> None:
        log_warning("relay-down", hop=self._name, reason=why)
        raise RelayDown(cause=why)


def connecting_failed(name: str, error: Exception) -> RelayDown:
    """Log why there is no connection, and return the failure."""
    reason = str(error) or repr(error)
    log_warning("relay-down", hop=name, reason=reason)
    return RelayDown(cause=reason)


def endpoint_for(reactor: Any, host: str, port: int) -> Any:
    """The endpoint of a host name or an address."""
    # An address needs no resolver and no trials of several addresses, which are most of the cost of dialling.
    if isIPAddress(host):
        return TCP4ClientEndpoint(reactor, host, port, timeout=int(CONNECT_TIME))
    if isIPv6Address(host):
        return TCP6ClientEndpoint(reactor, host, port, timeout=int(CONNECT_TIME))
    return HostnameEndpoint(reactor, host.encode("ascii"), port, timeout=CONNECT_TIME)


class NextHopDialer:
    """Connects to the configured next hop (`smtp.hop.NextHop`)."""

    def __init__(
        self, reactor: Any, relay: Relay, tls: IOpenSSLClientConnectionCreator, transports: Transports
    ) -> None:
        """Raises: OSError when the password file cannot be read."""
        self._take_connection = transports.take_connection
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

    async def connect(self) -> HopProtocol:
        """Connect; implicit TLS is established then. Raises: RelayDown."""
        relay = self._relay
        endpoint = endpoint_for(self._reactor, relay.host, relay.port)
        name, take = self.name, self._take_connection
        factory = Factory.forProtocol(
            cast("Any", lambda: HopProtocol(self._reactor, self._tls, name, relay.timeout, take))
        )
        factory.noisy = False
        try:
            connection = cast("HopProtocol", await abandonable(endpoint.connect(factory)))
        except CONNECTING_FAILURES as error:
            raise connecting_failed(self.name, error) from error
        if relay.tls == "implicit":
            await connection.start_tls()
        return connection
