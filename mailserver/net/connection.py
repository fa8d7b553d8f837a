"""One connection: a Twisted protocol below, a `mailserver.channel.Channel` above, and the task that runs its session.

Problems, and what is done about them:

*   A client that does not read: the transport pauses us as its producer; `drain`, and the next `read`, then wait. So
    at most one transport buffer and one chunk of an answer are in memory. Taking nothing for `write_timeout` ends it.
*   A client that sends faster than it is served: more than READ_AHEAD unread octets pause reading.
*   Many writes of a few octets: they are joined and leave when the session waits.
*   A timer for each read would cost more than a NOOP: one timer is kept, and moved only when a deadline comes nearer.
*   A session that always has something to do, as a client which pipelines thousands of commands gives it: after TURN
    seconds its next `drain` waits for the reactor's next turn.
*   Bytes behind STARTTLS: whatever arrived before the handshake and was not read ends the connection.
*   A client that never logs in: its handshake and all its reads together end at `login_time`, however they drip.
*   Shutting down: a session between two commands gets its protocol's farewell at once, one inside a command when it
    next reads; what hangs is cut after a grace time.
*   The end: a connection counts until its transport is gone, not only until its session is, so that clients which do
    not close cannot pile up. What they still send is dropped, and after CLOSING_TIME they are cut.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count
from os import getpid
from time import time
from typing import Any, Protocol, cast

from attrs import evolve, frozen
from OpenSSL import SSL
from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.channel import Channel, ConnectionInfo, TLSInfo, Wake
from mailserver.errors import ConnectionLost
from mailserver.net.driver import Task
from mailserver.net.limits import ConnectionCounts
from mailserver.net.log import event_line, log
from mailserver.net.tls import TlsFactory
from mailserver.tls.contexts import parse_server_name

READ_AHEAD = 65536
JOINED = 65536
"""Octets that are joined to one write while a session goes on without waiting."""
TURN = 0.005
"""Seconds that a session may go on while others wait."""
HANDSHAKE_TIME = 30.0
CLOSING_TIME = 30.0
STOPPING_TIME = 2.0
"""CLOSING_TIME while the service stops: most clients close at once when they hear the farewell."""
_READING = frozenset({"read", "read-or-poke"})
_WITHIN_COMMAND = frozenset({"drain", "turn"})

_serial = count(1)


class Session(Protocol):
    """What a protocol's session is to the connection."""

    @property
    def mailbox_name(self) -> str | None:
        """The mailbox that is open, for the administrator to see; None without one."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Serve the client to the end."""


@frozen
class Listening:
    """What all connections of one listener share."""

    protocol: str
    make_session: Callable[[Channel], Session]
    farewell: bytes
    """Told to a client when the service stops; empty where the protocol has no such line."""
    refusal: bytes
    """The greeting of a connection too many, where it can be said without TLS."""
    reactor: IReactorTime
    counts: ConnectionCounts
    tls: TlsFactory | None
    """For STARTTLS, or for implicit TLS; None where TLS is not offered."""
    implicit_tls: bool
    cleartext_allowed: bool
    tls_required: bool
    logs_in: bool
    """Do its clients log in? Else (LMTP) they have no login time, and only the limit of all connections is theirs."""
    local: str
    open_connections: set[Connection]
    stopped: Callable[[], None]
    """Called when the last connection has ended."""


@types.coroutine
def _wait(waiting: object) -> Generator[object, Any, Any]:
    return (yield waiting)


@implementer(IHandshakeListener, IHalfCloseableProtocol, IPushProducer)
class Connection(TwistedProtocol):
    """The protocol instance of one connection; see the module's text."""

    info: ConnectionInfo
    since: float
    """When it was accepted, Unix time."""

    def __init__(self, listening: Listening, address: IAddress | None = None) -> None:
        """`address`: the client's, where a trusted proxy tells another than the transport's peer."""
        self._listening = listening
        self._address = address
        self._share: IPv4Address | IPv6Address | None = None
        """Whose share of the limits it takes."""
        self._login_by: float | None = None
        self._task: Task | None = None
        self._input: list[bytes] = []
        self._unread = 0
        self._reading_paused = False
        self._output: list[bytes] = []
        self._unsent = 0
        """Octets in `_output`."""
        self._choked = False
        self._lost = False
        self._ended = False
        self._finished = False
        self._closing = False
        self._stopping = False
        self._poked = False
        self._counted = False
        self._logout_told = False
        self._user: str | None = None
        self._session: Session | None = None
        self._farewell = listening.farewell
        self.received = 0
        """Octets of the client, and to it: inside TLS, not on the wire."""
        self.sent = 0
        self._wait_for: str | None = None
        self._deadline: float | None = None
        self._timer: IDelayedCall | None = None

    # --- What Twisted calls

    def connectionMade(self) -> None:
        """Accepted. With implicit TLS the session starts after the handshake."""
        listening = self._listening
        transport = self.transport
        assert transport is not None
        self.since = time()
        peer, port = _address(self._address if self._address is not None else transport.getPeer())
        self.info = ConnectionInfo(
            session_id=f"{getpid():x}.{next(_serial):x}",
            protocol=listening.protocol,
            peer=peer,
            peer_port=port,
            local=listening.local,
            tls=None,
            cleartext_allowed=listening.cleartext_allowed,
            starttls_offered=listening.tls is not None and not listening.implicit_tls,
            tls_required=listening.tls_required,
        )
        if listening.logs_in:
            self._share = peer
            self._login_by = self.now() + listening.counts.limits.login_time
        if not listening.counts.open(self._share):
            self._refuse()
            return
        self._counted = True
        listening.open_connections.add(self)
        if peer is not None:
            cast("Any", transport).setTcpNoDelay(True)
            cast("Any", transport).setTcpKeepAlive(True)
        if listening.implicit_tls:
            self._set_deadline(self._handshake_deadline())
        else:
            self._start()

    def handshakeCompleted(self) -> None:
        """TLS is up: remember what was agreed on, and go on."""
        connection = cast("Any", self.transport).getHandle()
        self.info = evolve(self.info, tls=_tls_info(connection), starttls_offered=False)
        self._set_deadline(None)
        if self._task is None:
            self._start()
        elif self._wait_for == "handshake":
            self._resume(None)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._finished:
            return
        self._input.append(data)
        self._unread += len(data)
        self.received += len(data)
        if self._wait_for in _READING:
            self._resume(None)
        if self._unread > READ_AHEAD and not self._reading_paused and not self._lost:
            self._reading_paused = True
            cast("Any", self.transport).pauseProducing()

    def readConnectionLost(self) -> None:
        """The client has sent all it will send; it still reads."""
        self._ended = True
        if self._wait_for is not None and self._wait_for not in _WITHIN_COMMAND:
            self._resume(None)
        elif self._task is None and not self._finished:
            self._abort()

    def writeConnectionLost(self) -> None:
        """The client reads no more."""
        self._abort()

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        """The end. A session in the middle of a store operation learns of it when that is done."""
        if isinstance(reason.value, SSL.Error) and self.info.tls is None:
            self.log("tls-failed", reason=_words(reason.value))
        self._lost = self._ended = True
        self._set_deadline(None)
        self._input.clear()
        self._output.clear()
        self._unread = self._unsent = 0
        if self._wait_for is not None:
            self._resume(None)
        elif self._task is None or self._finished:
            self._forget()

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._choked = True

    def resumeProducing(self) -> None:
        """It has room again."""
        self._choked = False
        if self._wait_for == "drain":
            self._resume(None)

    def stopProducing(self) -> None:
        """The transport takes nothing any more; connectionLost follows."""
        self._choked = False

    # --- What the session calls (mailserver.channel.Channel)

    def now(self) -> float:
        """Monotonic seconds of the reactor."""
        return self._listening.reactor.seconds()

    async def read(self, timeout: float, *, pokes: bool = False) -> bytes | Wake:
        """The next bytes, joined; waits first until the client has taken what was written."""
        if self._choked:
            await self.drain()
        deadline: float | None = None
        while not self._input:
            if self._lost or self._ended or self._closing:
                raise ConnectionLost
            if self._stopping:
                self._say_farewell()
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
        """Queued until the session waits."""
        if not self._lost:
            self._output.append(data)
            self._unsent += len(data)

    async def drain(self) -> None:
        """Wait for room in the transport's buffer; what is less than JOINED octets waits for more, or for a pause.

        A session that has run for long lets the others go first.
        """
        if self._unsent >= JOINED or self._choked or self._lost:
            await self._make_room()
        assert self._task is not None
        if self.now() - self._task.began > TURN:
            self._listening.reactor.callLater(0, self._take_turn)
            await self._wait("turn", None)
            if self._lost:
                raise ConnectionLost

    async def _make_room(self) -> None:
        self._flush()
        deadline = self.now() + self._listening.counts.limits.write_timeout
        while self._choked and not self._lost:
            if self.now() >= deadline:
                self.log("connection-cut", reason="the client takes nothing")
                self._abort()
                raise ConnectionLost
            await self._wait("drain", deadline)
        if self._lost:
            raise ConnectionLost

    async def start_tls(self) -> None:
        """Hand the transport to TLS and wait for the handshake."""
        factory = self._listening.tls
        assert factory is not None, "TLS is not offered on this listener"
        if self._input:
            self.log("starttls-refused", reason="bytes arrived before the handshake")
            self._abort()
            raise ConnectionLost
        self._flush()
        if self._lost:
            raise ConnectionLost
        transport = cast("Any", self.transport)
        if self._reading_paused:
            self._reading_paused = False
            transport.resumeProducing()
        transport.unregisterProducer()
        deadline = self._handshake_deadline()
        self.transport = factory.wrap(self, transport)
        cast("Any", self.transport).registerProducer(self, streaming=True)
        while self.info.tls is None:
            if self._lost or self._ended:
                raise ConnectionLost
            if self.now() >= deadline:
                self.log("tls-failed", reason="no handshake in time")
                self._abort()
                raise ConnectionLost
            await self._wait("handshake", deadline)

    async def sleep(self, seconds: float) -> None:
        """Wait; ends early when the client goes."""
        deadline = self.now() + seconds
        while self.now() < deadline:
            if self._lost or self._ended:
                raise ConnectionLost
            await self._wait("sleep", deadline)

    def poke(self) -> None:
        """Wake a read that listens for pokes."""
        self._poked = True
        if self._wait_for == "read-or-poke":
            # Not from within whoever pokes: it may be in the middle of applying changes.
            self._listening.reactor.callLater(0, self._take_poke)

    def logged_in(self, user: str) -> None:
        """Count the session for its user."""
        self._listening.counts.logged_in(self._share, user)
        self._user = user
        self._login_by = None

    def log(self, event: str, **fields: object) -> None:
        """One line at level info."""
        self._logout_told = self._logout_told or event == "logout"
        log.info("{line}", line=event_line(event, self.info, self._user, fields))

    def bug(self, doing: str) -> None:
        """The exception being handled, with its traceback."""
        log.failure("{line}", line=event_line("bug", self.info, self._user, {"doing": doing}))

    def close(self) -> None:
        """The session will read no more; the connection ends when it returns."""
        self._closing = True

    # --- What the administrator sees

    @property
    def user(self) -> str | None:
        """Who has logged in."""
        return self._user

    @property
    def mailbox_name(self) -> str | None:
        """The mailbox that its session has open."""
        return None if self._session is None else self._session.mailbox_name

    # --- Stopping it

    def stop(self, farewell: bytes | None = None) -> None:
        """Say farewell: now between two commands, else when the session next reads.

        `farewell` is a whole line; the one for the service's end when None.
        """
        self._stopping = True
        if farewell is not None:
            self._farewell = farewell
        if self._finished:
            self._set_deadline(self.now() + STOPPING_TIME)
        elif self._task is None or self._wait_for == "handshake":
            self._abort()
        elif self._wait_for is not None and self._wait_for not in _WITHIN_COMMAND:
            self._ended = True
            self._say_farewell()
            self._resume(None)

    def cut(self) -> None:
        """End it at once."""
        self._abort()

    # --- Inside

    def _start(self) -> None:
        cast("Any", self.transport).registerProducer(self, streaming=True)
        self._session = self._listening.make_session(cast("Channel", self))
        self._task = Task(self._session.run(), self._end, self._flush, self._listening.reactor.seconds)
        self._task.start()

    def _end(self, failure: Failure | None) -> None:
        self._wait_for = None
        self._finished = True
        self._session = None  # it knows this connection: together they would wait for a search for cycles
        if failure is not None and not failure.check(ConnectionLost):
            log.failure("{line}", failure, line=event_line("bug", self.info, self._user, {"doing": "session"}))
        if self._user is not None and not self._logout_told:
            self.log("logout")  # every login has its logout, however the session ended
        if self._lost:
            self._forget()
            return
        self._flush()
        transport = cast("Any", self.transport)
        transport.unregisterProducer()
        self._close()

    def _close(self) -> None:
        """What was written goes out, what still comes is dropped, and it is cut if that takes too long."""
        self._finished = True
        self._input.clear()
        self._unread = 0
        transport = cast("Any", self.transport)
        if self._reading_paused:
            self._reading_paused = False
            transport.resumeProducing()
        transport.loseConnection()
        if not self._lost:
            self._set_deadline(self.now() + (STOPPING_TIME if self._stopping else CLOSING_TIME))

    def _refuse(self) -> None:
        listening = self._listening
        if (unsaid := listening.counts.tell_refusal(self._share, self.now())) is not None:
            self.log("connection-refused", reason="too many connections", unsaid=unsaid)
        if listening.implicit_tls or not listening.refusal:
            self._finished = True
            self._abort()
            return
        cast("Any", self.transport).write(listening.refusal)
        self._close()

    def _handshake_deadline(self) -> float:
        deadline = self.now() + HANDSHAKE_TIME
        return deadline if self._login_by is None else min(deadline, self._login_by)

    def _forget(self) -> None:
        if self._counted:
            self._counted = False
            self._listening.counts.close(self._share, self._user)
            self._listening.open_connections.discard(self)
            if not self._listening.open_connections:
                self._listening.stopped()

    async def _wait(self, what: str, deadline: float | None) -> None:
        self._wait_for = what
        self._set_deadline(deadline)
        await _wait(self)

    def _resume(self, value: object) -> None:
        self._wait_for = None
        self._deadline = None
        assert self._task is not None
        self._task.resume(value)

    def _take_turn(self) -> None:
        if self._wait_for == "turn":
            self._resume(None)

    def _take_poke(self) -> None:
        if self._wait_for == "read-or-poke":
            self._resume(None)

    def _flush(self) -> None:
        if self._output and not self._lost:
            data = self._output[0] if len(self._output) == 1 else b"".join(self._output)
            self._output.clear()
            self.sent += self._unsent
            self._unsent = 0
            cast("Any", self.transport).write(data)

    def _say_farewell(self) -> None:
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
            self._timer = self._listening.reactor.callLater(max(0.0, deadline - self.now()), self._timer_rang)

    def _timer_rang(self) -> None:
        self._timer = None
        deadline = self._deadline
        if deadline is None:
            return
        if self.now() < deadline:
            self._set_deadline(deadline)
        elif self._wait_for is not None:
            self._resume(None)
        else:  # a handshake, or the closing, that takes too long
            if not self._finished:
                self.log("tls-failed", reason="no handshake in time")
            self._abort()


class ConnectionFactory(Factory):
    """Makes the protocol of each connection of a listener."""

    noisy = False

    def __init__(self, listening: Listening) -> None:
        self.listening = listening

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """One for each client, who is at `addr`."""
        return Connection(self.listening, addr)


def _address(address: object) -> tuple[IPv4Address | IPv6Address | None, int]:
    if isinstance(address, TCP4Address | TCP6Address):
        return ip_address(address.host.partition("%")[0]), address.port
    return None, 0


def _words(error: SSL.Error) -> str:
    """What OpenSSL says, without its places in its own source."""
    reasons = [str(entry[-1]) for entry in (error.args[0] if error.args else ()) if isinstance(entry, tuple)]
    return "; ".join(reasons) or type(error).__name__


def _tls_info(connection: SSL.Connection) -> TLSInfo:
    return TLSInfo(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        server_name=parse_server_name(connection.get_servername()),
    )
