"""Hops without sockets, on a clock that the test turns: real connections of ours, whose transport is a server of lines."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailserver.net.outbound.dialer import CONNECT_TIME, HopProtocol
from mailserver.net.outbound.place import Place
from mailserver.queue.outcome import Outcome, outcome_of_silence
from mailserver.smtp.onward import OnwardExchange
from mailserver.smtp.onward_transaction import OnwardSession

EHLO = b"250-hop\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000000"


class ClockedHop:
    """A host. `replies` has the answers by the beginning of a line: octets, None for none, or a callable that returns these.

    b"" is the greeting, b"." the end of the message.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.replies: dict[bytes, Any] = {}
        self.is_reachable = True
        """False: the connection is neither made nor refused."""
        self.refuses = False
        self.connections: list[_Transport] = []
        self.recipients: list[str] = []
        """Of accepted messages, in their order."""
        self.lines: list[bytes] = []
        self.messages: list[bytes] = []
        self.most_open = 0
        """Connections at once."""

    @property
    def open(self) -> int:
        """Connections that are not closed."""
        return sum(not each.has_ended for each in self.connections)

    def answer(self, line: bytes, usual: bytes) -> bytes | None:
        """The reply to a line."""
        for beginning, reply in self.replies.items():
            if line.startswith(beginning) if beginning else not line:
                found = reply() if callable(reply) else reply
                return cast("bytes | None", found)
        return usual

    async def connect(self, place: Place) -> OnwardSession | Outcome:
        """As `HopConnector.open`."""
        if not self.is_reachable:
            await deferLater(cast("Any", self.clock), CONNECT_TIME, lambda: None)
            return outcome_of_silence("connect", "timeout", hop=place.name)
        if self.refuses:
            return outcome_of_silence("connect", "refused", hop=place.name)
        protocol = HopProtocol(cast("Any", self.clock), cast("Any", None), place.name, 300)
        transport = _Transport(self)
        self.connections.append(transport)
        self.most_open = max(self.most_open, self.open)
        protocol.makeConnection(transport)
        transport.say(self.answer(b"", b"220 hop"))
        exchange = OnwardExchange("mail.example.test", tls="never", found_by_mx=True)
        session = OnwardSession(exchange, protocol, place.name)
        try:
            failure = await session.open()
        except BaseException:
            protocol.abort()
            raise
        return failure or session


class _Transport(StringTransport):
    def __init__(self, hop: ClockedHop) -> None:
        super().__init__()
        self.has_ended = False
        self._hop = hop
        self._input = b""
        self._data: bytes | None = None
        self._accepted: list[str] = []

    def say(self, reply: bytes | None) -> None:
        """Send a reply; b"" closes the connection."""
        if reply is None:
            return
        if reply == b"":
            self._end(ConnectionDone())
            return
        self._hop.clock.callLater(0, self._receive, reply + b"\r\n")

    def _receive(self, data: bytes) -> None:
        if not self.has_ended:
            cast("Any", self.producer).dataReceived(data)

    def write(self, data: bytes) -> None:
        self._input += data
        while b"\r\n" in self._input and not self.has_ended:
            line, _, self._input = self._input.partition(b"\r\n")
            self._line(line)

    def loseConnection(self) -> None:
        self._end(ConnectionDone())

    def abortConnection(self) -> None:
        self._end(ConnectionAborted())

    def unregisterProducer(self) -> None:
        """It stays: it is the protocol, which hears of the end."""

    def _end(self, reason: Any) -> None:
        if not self.has_ended:
            self.has_ended = True
            self._hop.clock.callLater(0, cast("Any", self.producer).connectionLost, Failure(reason))

    def _line(self, line: bytes) -> None:
        if self._data is not None:
            self._content(line)
            return
        self._hop.lines.append(line)
        word = line.split(b" ")[0]
        usual = {b"EHLO": EHLO, b"DATA": b"354 go on", b"QUIT": b"221 bye"}.get(word, b"250 2.0.0 ok")
        reply = self._hop.answer(line, usual)
        if word == b"MAIL":
            self._accepted = []
        elif word == b"RCPT" and reply and reply.startswith(b"2"):
            self._accepted.append(line.partition(b"<")[2].partition(b">")[0].decode())
        elif word == b"DATA" and reply and reply.startswith(b"354"):
            self._data = b""
        self.say(reply)

    def _content(self, line: bytes) -> None:
        assert self._data is not None
        if line != b".":
            self._data += line.removeprefix(b".") + b"\r\n"
            return
        reply = self._hop.answer(b".", b"250 2.0.0 taken")
        if reply is None or reply.startswith(b"2"):
            self._hop.recipients += self._accepted
            self._hop.messages.append(self._data)
        self._data = None
        self.say(reply)
