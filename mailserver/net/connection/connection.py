"""One connection: a Twisted protocol below, a `mailserver.session.channel.Channel` above, and the task that runs its session.

Its lower parts are the superclasses: `stream` reads, writes and waits, `tls_detection` judges the first octets, `acceptance`
finds the client and counts it. This module has the session and the end.

*   Octets behind STARTTLS: what arrived before the handshake and was not read ends the connection.
*   A client that never logs in: its handshake and all its reads together end at `login_time`, however slowly they come.
*   The stop of the service: a session between two commands gets the closing line of its protocol at once, one inside a command
    when it reads next. What is left is cut after a grace time.
*   The end: a connection counts until its transport is gone, not only until its session is, so that clients which do
    not close cannot pile up. What they still send is dropped, and after CLOSING_TIME they are cut. While the service stops
    they are closed as soon as they have acknowledged all that was sent.
"""

from __future__ import annotations

from typing import Any, Final, cast

from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IFileDescriptorReceiver, IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.errors import ConnectionLost
from mailserver.net.connection.acceptance import Acceptance
from mailserver.net.connection.coroutines import Task, TurnOverrun
from mailserver.net.connection.listener_context import ListenerContext, Session
from mailserver.net.connection.stream import WITHIN_COMMAND
from mailserver.net.connection.turn_limit import location_of
from mailserver.net.ipc.received_fds import close_descriptors
from mailserver.net.transport.tls import TooManyAnswers, channel_binding
from mailserver.session.channel import Channel
from mailserver.tls.context.handshake import failure_reason, openssl_reason

NO_HANDSHAKE: Final = "no handshake in time: the client, or something on the way, has stopped before its end"
CLOSING_TIME: Final = 30.0
"""Seconds that a client has to close, once its session has ended."""
COMMAND_TIME: Final = 1.0
"""Seconds that a command may go on once its session has been asked to end."""
STOPPING_TIME: Final = 2.0
"""The same while the service stops, for a client that does not acknowledge the closing line."""
DELIVERY_CHECK_INTERVAL: Final = 0.02
"""Seconds between two checks, meanwhile, whether a client has acknowledged everything."""


@implementer(IHalfCloseableProtocol, IFileDescriptorReceiver)
class Connection(Acceptance):
    """The Twisted protocol of one client."""

    _descriptors: tuple[int, ...] = ()
    """Descriptors that the client has passed; one thread closes them."""

    def __init__(self, context: ListenerContext, address: IAddress | None = None) -> None:
        """`address`: the client's, where a trusted proxy names another than the transport's peer."""
        super().__init__(context, address)
        self._session: Session | None = None
        self._abort_at = 0.0
        """When a connection that has ended while the service stops is aborted, if the client has not acknowledged all."""

    # --- What Twisted calls

    def readConnectionLost(self) -> None:
        """The client has sent all it will send; it still reads."""
        self._ended = True
        if self._is_rejected:
            cast("Any", self.transport).loseConnection()
        elif self._waits_for is not None and self._waits_for not in WITHIN_COMMAND:
            self._resume(None)
        elif self._task is None and not self._finished:
            self._abort()

    def writeConnectionLost(self) -> None:
        """The client reads no more, or has got the reason why it is rejected."""
        if not self._is_rejected:
            self._abort()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Cut a client of an endpoint's Unix socket that passes one. Twisted would close it, which may block for long."""
        if not self._descriptors:
            self._context.reactor.callLater(0, self._close_descriptors)
            self._abort()
        self._descriptors = (*self._descriptors, descriptor)

    def _close_descriptors(self) -> None:
        descriptors, self._descriptors = self._descriptors, ()
        close_descriptors(descriptors)

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        """End the session. One in the middle of a store operation is resumed when that is done."""
        if isinstance(reason.value, SSL.Error) and self.info.tls is None:
            self.log("tls-failed", reason=self._handshake_fault(openssl_reason(reason.value)))
        elif isinstance(reason.value, TooManyAnswers):
            self.log("connection-cut", reason=str(reason.value))
        self._lost = self._ended = True
        self._set_deadline(None)
        self._stop_observing()
        self._input.clear()
        self._output.clear()
        self._unread = self._unsent = 0
        if self._task is not None:
            # A wait for the next hop goes on: it may have the whole message.
            self._task.cancellation.request()
        if self._waits_for is not None:
            self._resume(None)
        elif self._task is None or self._finished:
            self._forget()

    # --- For the session (mailserver.session.channel.Channel)

    async def start_tls(self) -> None:
        """Hand the transport to TLS and wait for the handshake."""
        factory = self._context.tls
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
                self.log("tls-failed", reason=NO_HANDSHAKE)
                self._abort()
                raise ConnectionLost
            await self._wait("handshake", deadline)

    def channel_binding(self) -> bytes | None:
        """See Channel."""
        return None if self.info.tls is None else channel_binding(cast("Any", self.transport).getHandle())

    # --- For the administrator

    @property
    def user(self) -> str | None:
        """The user who has logged in."""
        return self._log.user

    @property
    def credential(self) -> str:
        """The app password that let it in; empty: the main password or a certificate."""
        return self._log.credential

    @property
    def delegate(self) -> str:
        """The account that has logged in as this user; empty: the user itself."""
        return self._log.delegate

    @property
    def mailbox_name(self) -> str | None:
        """The mailbox that the session has open."""
        return None if self._session is None else self._session.mailbox_name

    # --- Stopping it

    def stop(self, farewell: bytes | None = None) -> None:
        """Send the closing line and end: now between two commands, else when the session reads next.

        `farewell` is a whole line; that of a service that stops when None.
        """
        self._stopping = True
        if farewell is not None:
            self._farewell = farewell
        if self._finished:
            self._close_when_delivered()
        elif self._task is None or self._waits_for == "handshake":
            self._abort()
        elif self._waits_for is not None and self._waits_for not in WITHIN_COMMAND:
            self._ended = True
            self._write_farewell()
            self._resume(None)
        else:
            self._context.reactor.callLater(COMMAND_TIME, self._cancel_command)

    def _cancel_command(self) -> None:
        if self._task is not None and not self._finished:
            self._task.cancel()

    def cut(self) -> None:
        """Abort the connection."""
        self._abort()

    # --- Inside

    def _start(self) -> None:
        cast("Any", self.transport).registerProducer(self, streaming=True)
        self._session = self._context.make_session(cast("Channel", self))
        self._task = Task(self._session.run(), self._end, self._flush, self._context.reactor.seconds)
        self._task.start()

    def _end(self, failure: Failure | None) -> None:
        self._waits_for = None
        self._finished = True
        if failure is not None and failure.check(TurnOverrun):
            command = "" if self._session is None else self._session.command
            self.log("turn-overrun", command=command, at=location_of(failure))
            self._abort()
            failure = None
        self._session = None  # a cycle, which would wait for the garbage collector
        if failure is not None and not failure.check(ConnectionLost):
            self._log.bug(self.info, "session", failure)
        if self._log.user is not None and not self._log.has_logout:
            self.log("logout")  # each login has one, however the session ended
        if self._lost:
            self._forget()
            return
        transport = cast("Any", self.transport)
        if self.info.tls is not None:
            getattr(transport, "hold", lambda: None)()
        self._flush()
        transport.unregisterProducer()
        self._close()

    def _close(self) -> None:
        """Send what was written, drop what still comes, and abort if that takes too long."""
        self._finished = True
        self._input.clear()
        self._unread = 0
        transport = cast("Any", self.transport)
        if self._reading_paused:
            self._reading_paused = False
            transport.resumeProducing()
        transport.loseConnection()
        if self._lost:
            return
        if self._stopping:
            self._close_when_delivered()
        else:
            self._set_deadline(self.now() + CLOSING_TIME)

    def _close_when_delivered(self) -> None:
        """Close without waiting for the client, once it has acknowledged everything: the service stops."""
        now = self.now()
        self._abort_at = now + STOPPING_TIME
        self._set_deadline(now + DELIVERY_CHECK_INTERVAL)

    def _overdue(self) -> None:
        if self._header is not None:
            self._refuse_header("no header in time")
            return
        if self._detecting and self._task is None and not self._tls_below:
            self._first_octets_overdue()
            return
        if not self._finished:
            self.log("tls-failed", reason=NO_HANDSHAKE)
        elif self._stopping and self.now() < self._abort_at:
            if not getattr(self.transport, "end_if_delivered", lambda: False)():
                self._set_deadline(min(self.now() + DELIVERY_CHECK_INTERVAL, self._abort_at))
            return
        self._abort()

    def _handshake_fault(self, reason: str) -> str:
        handle = getattr(self.transport, "getHandle", lambda: None)()
        return failure_reason(handle, reason) if isinstance(handle, SSL.Connection) else reason
