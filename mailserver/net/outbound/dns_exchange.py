"""Questions to resolvers over UDP and TCP (`dns.resolver.Exchange`).

Each question has a socket of its own, connected to the server: the kernel drops what others send, and each has another
port, which a forger must guess beside the id (RFC 5452 9.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.python.failure import Failure

from mailserver.dns.query import LARGEST_ANSWER, BadAnswer, DNSFailure
from mailserver.dns.resolver import Nameserver
from mailserver.net.connection.coroutines import AbandonableDeferred

T = TypeVar("T")

NO_ANSWER = "the resolver does not answer in time"
MOST_DATAGRAMS = 64
"""Datagrams that may be no answer before the wait ends: somebody forges them."""


class _Question(DatagramProtocol):
    """One question over UDP, until `done` has its result."""

    def __init__(self, server: Nameserver, data: bytes, read: Callable[[bytes], Any]) -> None:
        self.done: Deferred[Any] = AbandonableDeferred()
        self._server = server
        self._data = data
        self._read = read
        self._left = MOST_DATAGRAMS

    def startProtocol(self) -> None:
        """See DatagramProtocol."""
        transport = cast("Any", self.transport)
        transport.connect(str(self._server.address), self._server.port)
        try:
            transport.write(self._data)
        except OSError as error:
            self._end(Failure(_failed(error)))

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: ARG002 - as in Twisted
        """See DatagramProtocol."""
        try:
            result = self._read(datagram)
        except BadAnswer as error:
            self._left -= 1
            if not self._left:
                self._end(Failure(error))
        except Exception:
            self._end(Failure())
        else:
            self._end(result)

    def time_out(self) -> None:
        """End the wait."""
        self._end(Failure(DNSFailure(NO_ANSWER)))

    def connectionRefused(self) -> None:
        """See DatagramProtocol: nobody listens there."""
        self._end(Failure(DNSFailure("the resolver refuses the connection")))

    def stopProtocol(self) -> None:
        """See DatagramProtocol. The reactor of epoll ends the port where nobody listens."""
        self.connectionRefused()

    def _end(self, result: Any) -> None:
        if not self.done.called:
            self.done.callback(result)


class _Stream(Protocol):
    """One question over TCP: two octets of length before each message (RFC 1035 4.2.2)."""

    def __init__(self, data: bytes) -> None:
        self.done: Deferred[bytes] = AbandonableDeferred()
        self._data = data
        self._input = bytearray()

    def connectionMade(self) -> None:
        """See IProtocol."""
        cast("Any", self.transport).write(len(self._data).to_bytes(2, "big") + self._data)

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self._input += data
        length = int.from_bytes(self._input[:2], "big")
        if len(self._input) < 2:
            return
        if length > LARGEST_ANSWER:
            self._end(Failure(BadAnswer("the resolver's answer is too long")))
        elif len(self._input) >= 2 + length:
            self._end(bytes(self._input[2 : 2 + length]))

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: ARG002, B008 - as in Twisted
        """See IProtocol."""
        self.fail(DNSFailure("the resolver has closed the connection"))

    def not_connected(self, failure: Failure) -> None:
        """End the wait: there is no connection."""
        self.fail(_failed(cast("Exception", failure.value)))

    def fail(self, error: Exception) -> None:
        """End the wait."""
        self._end(Failure(error))

    def close(self) -> None:
        """End the connection, if there is one."""
        if self.transport is not None:
            cast("Any", self.transport).abortConnection()

    def _end(self, result: Any) -> None:
        if not self.done.called:
            self.done.callback(result)


class DNSExchange:
    """See `dns.resolver.Exchange`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def datagram(self, server: Nameserver, question: bytes, seconds: float, read: Callable[[bytes], T]) -> T:
        """See Exchange."""
        protocol = _Question(server, question, read)
        interface = "::" if server.address.version == 6 else ""
        try:
            port = self._reactor.listenUDP(0, protocol, interface=interface)
        except OSError as error:
            raise _failed(error) from error
        timer = self._reactor.callLater(seconds, protocol.time_out)
        try:
            return cast("T", await protocol.done)
        finally:
            if timer.active():
                timer.cancel()
            port.stopListening()

    async def stream(self, server: Nameserver, question: bytes, seconds: float) -> bytes:
        """See Exchange."""
        protocol = _Stream(question)
        kind = TCP6ClientEndpoint if server.address.version == 6 else TCP4ClientEndpoint
        factory = Factory.forProtocol(cast("Any", lambda: protocol))
        factory.noisy = False
        connecting = kind(self._reactor, str(server.address), server.port, timeout=int(seconds) + 1).connect(factory)
        connecting.addErrback(protocol.not_connected)
        timer = self._reactor.callLater(seconds, lambda: protocol.fail(DNSFailure(NO_ANSWER)))
        try:
            return await protocol.done
        finally:
            if timer.active():
                timer.cancel()
            connecting.cancel()
            protocol.close()


def _failed(error: Exception) -> DNSFailure:
    return DNSFailure(f"the resolver cannot be asked ({str(error) or type(error).__name__})")
