"""Reading, writing and waiting of one connection.

*   A client that does not read: the transport pauses us as its producer; `drain`, and the next `read`, then wait. So
    at most one transport buffer and one piece of an answer are in memory. A client that takes nothing for `write_timeout`
    is cut.
*   A client that sends faster than it is served: more than READ_AHEAD unread octets pause reading.
*   Many small writes: they are joined, and sent when the session waits.
*   Deadlines: a timer for each read would cost more than a NOOP. One timer is kept, and set anew only for an earlier deadline.
*   Compression (RFC 4978) is between the queue and the transport: what is sent at once is compressed at once, up to a flush.
    Input is decompressed as it is read, and the rest of a chunk stays compressed.
*   A client that pipelines thousands of commands, so that its session never waits: after MAX_TURN seconds the next `drain`
    waits for the reactor's next turn.
"""

from __future__ import annotations

import types
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from mailserver.errors import ConnectionLost
from mailserver.net.connection.coroutines import Task
from mailserver.net.connection.listener_context import ListenerContext
from mailserver.session.channel import Wake
from mailserver.session.deflate import DeflateStream

READ_AHEAD = 65536
MAX_JOINED = 65536
"""Octets of writes that are joined while a session does not wait."""
MAX_TURN = 0.005
"""Seconds that a session may run while others wait."""
_READING = frozenset({"read", "read-or-poke"})
WITHIN_COMMAND = frozenset({"drain", "turn"})
"""Waits in the middle of an answer."""


@types.coroutine
def _wait(waiting: object) -> Generator[object, Any, Any]:
    return (yield waiting)


@implementer(IPushProducer)
class Stream(Protocol):
    """The lower half of a `net.connection.connection.Connection`, which begins and ends it."""

    def __init__(self, context: ListenerContext) -> None:
        self._context = context
        self._login_by: float | None = None
        self._task: Task | None = None
        self._input: list[bytes] = []
        self._unread = 0
        self._reading_paused = False
        self._output: list[bytes] = []
        self._unsent = 0
        """Octets in `_output`."""
        self._output_paused = False
        self._lost = False
        self._ended = False
        self._finished = False
        self._closing = False
        self._stopping = False
        self._poked = False
        self._detecting = False
        """Are the client's first octets still to be judged?"""
        self._farewell = context.farewell
        self._deflate: DeflateStream | None = None
        self.received = 0
        """Octets from the client, and to it: inside TLS, not on the wire; compressed, where that is active."""
        self.sent = 0
        self._waits_for: str | None = None
        self._deadline: float | None = None
        self._timer: IDelayedCall | None = None

    # --- What Twisted calls

    def dataReceived(self, data: bytes) -> None:
        """Take octets of the client."""
        if self._finished or (self._detecting and not self._receive_first(data)):
            return
        self._input.append(data)
        self._unread += len(data)
        self.received += len(data)
        if self._waits_for in _READING:
            self._resume(None)
        if self._unread > READ_AHEAD and not self._reading_paused and not self._lost:
            self._reading_paused = True
            cast("Any", self.transport).pauseProducing()

    def pauseProducing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self._output_paused = True

    def resumeProducing(self) -> None:
        """Write again: the buffer has room."""
        self._output_paused = False
        if self._waits_for == "drain":
            self._resume(None)

    def stopProducing(self) -> None:
        """Stop waiting for room: connectionLost follows."""
        self._output_paused = False

    # --- For the session (mailserver.session.channel.Channel)

    @property
    def input_ended(self) -> bool:
        """See Channel."""
        return self._ended

    def now(self) -> float:
        """The reactor's clock, seconds."""
        return self._context.reactor.seconds()

    def read(self, timeout: float, *, pokes: bool = False) -> Coroutine[Any, Any, bytes | Wake]:
        """Return the next octets, joined, once the client has taken what was written."""
        if self._deflate is None:
            return self._read(timeout, pokes=pokes)
        return self._read_compressed(self._deflate, timeout, pokes=pokes)

    async def _read_compressed(self, deflate: DeflateStream, timeout: float, *, pokes: bool) -> bytes | Wake:
        deadline = self.now() + timeout
        while not (data := deflate.read()):
            if pokes:
                # IDLE may last for hours.
                self._flush()
                deflate.rest()
            octets = await self._read(max(0.0, deadline - self.now()), pokes=pokes)
            if isinstance(octets, Wake):
                return octets
            deflate.feed(octets)
        assert self._task is not None
        if self.now() - self._task.began > MAX_TURN:
            # Little input may be very many octets: others have their turn between them, and a stop is noticed.
            await self._wait_turn()
            if self._stopping:
                self._write_farewell()
                raise ConnectionLost
        if self._lost:
            raise ConnectionLost
        return data

    async def _read(self, timeout: float, *, pokes: bool) -> bytes | Wake:
        if self._output_paused:
            await self.drain()
        deadline: float | None = None
        while not self._input:
            if self._lost or self._ended or self._closing:
                raise ConnectionLost
            if self._stopping:
                self._write_farewell()
                raise ConnectionLost
            if pokes and self._poked:
                self._poked = False
                return Wake.POKED
            if self._reading_paused:
                self._reading_paused = False
                cast("Any", self.transport).resumeProducing()
                continue
            if deadline is None:
                deadline = self.now() + timeout
                if self._login_by is not None:
                    deadline = min(deadline, self._login_by)
            elif self.now() >= deadline:
                return Wake.TIMEOUT
            await self._wait("read-or-poke" if pokes else "read", deadline)
        data = self._input[0] if len(self._input) == 1 else b"".join(self._input)
        self._input.clear()
        self._unread = 0
        return data

    def write(self, data: bytes) -> None:
        """Queue octets until the session waits."""
        if not self._lost:
            self._output.append(data)
            self._unsent += len(data)

    async def drain(self) -> None:
        """Wait for room in the transport's buffer. Fewer than MAX_JOINED octets stay queued until the session waits.

        A session that has run for MAX_TURN waits for the reactor's next turn.
        """
        if self._unsent >= MAX_JOINED or self._output_paused or self._lost:
            await self._make_room()
        assert self._task is not None
        if self.now() - self._task.began > MAX_TURN:
            await self._wait_turn()

    async def _wait_turn(self) -> None:
        self._context.reactor.callLater(0, self._take_turn)
        await self._wait("turn", None)
        if self._lost:
            raise ConnectionLost

    async def _make_room(self) -> None:
        self._flush()
        deadline = self.now() + self._context.counts.limits.write_timeout
        while self._output_paused and not self._lost:
            if self.now() >= deadline:
                self.log("connection-cut", reason="the client takes nothing")
                self._abort()
                raise ConnectionLost
            await self._wait("drain", deadline)
        if self._lost:
            raise ConnectionLost

    @property
    def compressed(self) -> bool:
        """See Channel."""
        return self._deflate is not None

    def start_compression(self) -> None:
        """Send the queued octets, and compress all further ones."""
        self._flush()
        self._deflate = DeflateStream()

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises: ConnectionLost when the client goes."""
        deadline = self.now() + seconds
        while self.now() < deadline:
            if self._lost or self._ended:
                raise ConnectionLost
            await self._wait("sleep", deadline)

    def call_later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """Call it after that time, and send at once what it writes if the transport has room."""

        def call_and_flush() -> None:
            call()
            if not self._output_paused:
                self._flush()

        return self._context.reactor.callLater(seconds, call_and_flush)

    def poke(self) -> None:
        """End a read that waits for pokes."""
        self._poked = True
        if self._waits_for == "read-or-poke":
            # Later: the caller may be in the middle of applying changes.
            self._context.reactor.callLater(0, self._take_poke)

    def close(self) -> None:
        """Read no more; the connection ends when the session returns."""
        self._closing = True

    @abstractmethod
    def log(self, event: str, **fields: object) -> None:
        """Log an event of this connection."""

    # --- Inside

    @abstractmethod
    def _receive_first(self, data: bytes) -> bool:
        """Judge the client's first octets; whether they are for the session."""

    @abstractmethod
    def _overdue(self) -> None:
        """Handle a deadline that has passed while no session waits: of the first octets, the handshake, or the closing."""

    async def _wait(self, what: str, deadline: float | None) -> None:
        self._waits_for = what
        self._set_deadline(deadline)
        await _wait(self)

    def _resume(self, value: object) -> None:
        self._waits_for = None
        self._deadline = None
        assert self._task is not None
        self._task.resume(value)

    def _wake_reader(self) -> None:
        if self._waits_for in _READING:
            self._resume(None)

    def _take_turn(self) -> None:
        if self._waits_for == "turn":
            self._resume(None)

    def _take_poke(self) -> None:
        if self._waits_for == "read-or-poke":
            self._resume(None)

    def _flush(self) -> None:
        if self._output and not self._lost:
            data = self._output[0] if len(self._output) == 1 else b"".join(self._output)
            self._output.clear()
            self._unsent = 0
            if self._deflate is not None:
                data = self._deflate.compress(data)
            self.sent += len(data)
            cast("Any", self.transport).write(data)

    def _write_farewell(self) -> None:
        if self._farewell:
            self.write(self._farewell)

    def _abort(self) -> None:
        if not self._lost and self.transport is not None:
            cast("Any", self.transport).abortConnection()

    def _set_deadline(self, deadline: float | None) -> None:
        self._deadline = deadline
        timer = self._timer
        if deadline is None:
            if timer is not None and self._lost:
                timer.cancel()
                self._timer = None
            return
        if timer is None or timer.getTime() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._context.reactor.callLater(max(0.0, deadline - self.now()), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        deadline = self._deadline
        if deadline is None:
            return
        if self.now() < deadline:
            self._set_deadline(deadline)
        elif self._waits_for is not None:
            self._resume(None)
        else:
            self._overdue()
