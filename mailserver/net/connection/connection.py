"""One connection: a Twisted protocol below, a `mailserver.session.channel.Channel` above, and the task that runs its session.

`net.connection.stream` has the bytes and the waits, `net.connection.tls_detection` what the first ones decide; here is its life. Problems, and what is done about them:

*   Bytes behind STARTTLS: whatever arrived before the handshake and was not read ends the connection.
*   A client that never logs in: its handshake and all its reads together end at `login_time`, however they drip.
*   Shutting down: a session between two commands gets its protocol's farewell at once, one inside a command when it
    next reads; what hangs is cut after a grace time.
*   The end: a connection counts until its transport is gone, not only until its session is, so that clients which do
    not close cannot pile up. What they still send is dropped, and after CLOSING_TIME they are cut; at the service's
    end as soon as they have acknowledged all that was said.
"""

from __future__ import annotations

from itertools import count
from os import getpid
from time import time
from typing import Any, cast

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.errors import ConnectionLost
from mailserver.net.connection.connection_limits import Address
from mailserver.net.connection.connection_log import ConnectionLog
from mailserver.net.connection.coroutines import Task, TurnOverrun
from mailserver.net.connection.listener_context import ListenerContext, Session
from mailserver.net.connection.proxy_header import HEADER_TIME
from mailserver.net.connection.stream import WITHIN_COMMAND
from mailserver.net.connection.tls_detection import TlsDetection
from mailserver.net.connection.transports import (
    ProxyHeaderObserver,
    certificate_of_endpoint,
    place_of_host,
    proxy_wrapper,
    tls_connection,
)
from mailserver.net.connection.turn_limit import location_of
from mailserver.net.transport.address import address_of
from mailserver.net.transport.tls import TooManyAnswers, channel_binding, tls_info
from mailserver.session.channel import Channel, ClientCertificate, ConnectionInfo, TLSInfo
from mailserver.tls.context.handshake import failure_reason, handshake_of, openssl_reason

HANDSHAKE_TIME = 30.0
NO_HANDSHAKE = "no handshake in time: the client, or something on the way, has stopped before its end"
CLOSING_TIME = 30.0
MIN_LOGIN_TIME = 2.0
"""Seconds that a client has in any case to log in, where others need the place."""
COMMAND_TIME = 1.0
"""Seconds that a command may go on once its session has been asked to end."""
STOPPING_TIME = 2.0
"""CLOSING_TIME while the service stops, for a client that does not even take the farewell."""
DELIVERY_CHECK_INTERVAL = 0.02
"""Seconds between two looks, meanwhile, whether a client has heard all."""

_serial = count(1)


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class Connection(TlsDetection):
    """The protocol instance of one connection; see the module's text."""

    info: ConnectionInfo
    since: float
    """When it was accepted, Unix time."""

    def __init__(self, context: ListenerContext, address: IAddress | None = None) -> None:
        """`address`: the client's, where a trusted proxy tells another than the transport's peer."""
        super().__init__(context)
        self._address = address
        self._share: Address = None
        """Whose share of the limits it takes."""
        self._counted = False
        self._began = 0.0
        self._log = ConnectionLog(context)
        self._session: Session | None = None
        self._header: ProxyHeaderObserver | None = None
        """Reads along while the PROXY header is due."""
        self._tls_below = False
        """Is the handshake due that the endpoint does?"""
        self._cut_at = 0.0
        """When one that has ended while the service stops is cut, if the client has not heard all."""

    # --- What Twisted calls

    def connectionMade(self) -> None:
        """Accept the client. What it sends first may decide how the connection goes on."""
        transport = self.transport
        self.since = time()
        self._began = self.now()
        if tls_connection(transport) is not None:
            self._tls_below = True
            self._context = self._context.over_tls()
        context = self._context
        wrapper = proxy_wrapper(transport)
        if wrapper is not None:
            self._header = ProxyHeaderObserver(wrapper, self._read_header)
        session_id = f"{getpid():x}.{next(_serial):x}"
        self.info = self._make_info(session_id, (None, 0) if wrapper is not None else self._peer(), None)
        if context.logs_in:
            self._share = self.info.peer
            self._login_by = self.now() + context.counts.limits.login_time
        if not context.counts.open(self._share, self if context.logs_in else None):
            self._refuse()
            return
        self._counted = True
        context.event_counters.count("connection", self.info)
        context.open_connections.add(self)
        self._detecting = True
        if wrapper is not None:
            self._set_deadline(self.now() + HEADER_TIME)
        elif self._tls_below:
            self._set_deadline(self._handshake_deadline())
        else:
            self._await_first()

    def handshakeCompleted(self) -> None:
        """TLS is up: remember what was agreed on, and go on."""
        if self._header is not None and not self._accept_peer():
            return
        self._detecting = self._tls_below = False
        connection = cast("Any", self.transport).getHandle()
        tls = tls_info(connection)
        before = self.info
        self.info = self._make_info(before.session_id, (before.peer, before.peer_port), tls)
        self._log_certificate(connection, tls.client)
        self._context.event_counters.count("handshake", self.info)
        self._set_deadline(None)
        if self._task is None:
            self._start()
        elif self._waits_for == "handshake":
            self._resume(None)

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
        """The client reads no more, or was told why it is turned away."""
        if not self._is_rejected:
            self._abort()

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        """The end. A session in the middle of a store operation learns of it when that is done."""
        if isinstance(reason.value, SSL.Error) and self.info.tls is None:
            self.log("tls-failed", reason=self._handshake_fault(openssl_reason(reason.value)))
        elif isinstance(reason.value, TooManyAnswers):
            self.log("connection-cut", reason=str(reason.value))
        self._lost = self._ended = True
        self._set_deadline(None)
        if self._header is not None:
            self._header.stop()
            self._header = None
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

    # --- What the session calls (mailserver.session.channel.Channel)

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

    def logged_in(self, user: str) -> None:
        """Count the session for its user."""
        if not self._counted:
            raise ConnectionLost  # it has given way meanwhile
        self._context.counts.logged_in(self._share, user, self)
        self._log.user = user
        self._login_by = None

    def channel_binding(self) -> bytes | None:
        """See Channel."""
        return None if self.info.tls is None else channel_binding(cast("Any", self.transport).getHandle())

    def log(self, event: str, **fields: object) -> None:
        """One line at level info."""
        self._log.event(self.info, event, fields, self.now())

    def bug(self, doing: str) -> None:
        """The exception being handled, with its traceback."""
        self._log.bug(self.info, doing)

    # --- What the administrator sees

    @property
    def user(self) -> str | None:
        """The user who has logged in."""
        return self._log.user

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
        """End it at once."""
        self._abort()

    def evict(self) -> bool:
        """See `limits.EvictableConnection`."""
        if self.now() - self._began < MIN_LOGIN_TIME:
            return False
        if (unsaid := self._context.counts.count_refused_connection(self._share, self.now())) is not None:
            self.log("connection-cut", reason="another needs its place, and it has not logged in", unsaid=unsaid)
        self._forget()
        self._abort()
        return True

    # --- Inside

    def _peer(self) -> tuple[Address, int]:
        """The client's address and port; None and 0 of a Unix socket's."""
        transport = self.transport
        given = self._address if proxy_wrapper(transport) is None else None
        return address_of(given if given is not None else cast("Any", transport).getPeer())

    def _make_info(self, session_id: str, peer: tuple[Address, int], tls: TLSInfo | None) -> ConnectionInfo:
        context = self._context
        local = context.local or place_of_host(self.transport)
        allowed = self._may_send_passwords(peer[0])
        return context.connection_info(session_id, peer, tls, local=local, cleartext_allowed=allowed)

    def _may_send_passwords(self, peer: Address) -> bool:
        """Without TLS. The same host is, as with Dovecot, the address that is connected to; and a Unix socket."""
        cleartext = self._context.cleartext
        if cleartext != "same host":
            return cleartext == "always"
        if proxy_wrapper(self.transport) is not None:
            return False  # a proxy's address says nothing of the client's
        own, _port = address_of(cast("Any", self.transport).getHost())
        return peer == own

    def _read_header(self) -> None:
        """The PROXY header has come: go on with the client that it names."""
        if self._header is None or self._finished:
            return
        above_tls = self._tls_below and tls_connection(proxy_wrapper(self.transport)) is not None
        if not self._accept_peer():
            return
        if above_tls:
            self.handshakeCompleted()  # the header came through TLS, and its reader does not pass this on
        elif self._tls_below:
            self._set_deadline(self._handshake_deadline())
        else:
            self._await_first()

    def _accept_peer(self) -> bool:
        """Count the connection for the client of the PROXY header; False if it is refused."""
        if self._header is not None:
            self._header.stop()
            self._header = None
        self._set_deadline(None)
        context, peer = self._context, self._peer()
        self.info = self._make_info(self.info.session_id, peer, None)
        if not context.logs_in:
            return True
        context.counts.close(self._share, None, self)
        self._share = peer[0]
        if context.counts.open(self._share, self):
            return True
        self._counted = False
        context.open_connections.discard(self)
        self._refuse()
        return False

    def _receive_first(self, data: bytes) -> bool:
        if self._header is not None:
            self._read_header()
            if self._finished:
                return False
        if self._tls_below:
            self.handshakeCompleted()  # a wrapper between TLS and this protocol has not passed it on
        return super()._receive_first(data) if self._detecting else not self._finished

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
        self._session = None  # it knows this connection: together they would wait for a search for cycles
        if failure is not None and not failure.check(ConnectionLost):
            self._log.bug(self.info, "session", failure)
        if self._log.user is not None and not self._log.has_logout:
            self.log("logout")  # every login has its logout, however the session ended
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
        """What was written goes out, what still comes is dropped, and it is cut if that takes too long."""
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
        """It has ended, and so does the service: from now on the client's close is not waited for when it has heard all."""
        now = self.now()
        self._cut_at = now + STOPPING_TIME
        self._set_deadline(now + DELIVERY_CHECK_INTERVAL)

    def _refuse(self) -> None:
        context = self._context
        if (unsaid := context.counts.count_refused_connection(self._share, self.now())) is not None:
            self.log("connection-refused", reason="too many connections", unsaid=unsaid)
        if context.implicit_tls or not context.refusal:
            self._finished = True
            self._abort()
            return
        cast("Any", self.transport).write(context.refusal)
        self._close()

    def _handshake_deadline(self) -> float:
        deadline = self.now() + HANDSHAKE_TIME
        return deadline if self._login_by is None else min(deadline, self._login_by)

    def _overdue(self) -> None:
        if self._header is not None:
            self.log("proxy-header-refused", reason="no header in time")
            self._abort()
            return
        if self._detecting and self._task is None and not self._tls_below:
            self._first_octets_overdue()
            return
        if not self._finished:
            self.log("tls-failed", reason=NO_HANDSHAKE)
        elif self._stopping and self.now() < self._cut_at:
            if not getattr(self.transport, "end_if_delivered", lambda: False)():
                self._set_deadline(min(self.now() + DELIVERY_CHECK_INTERVAL, self._cut_at))
            return
        self._abort()

    def _log_certificate(self, connection: SSL.Connection, client: ClientCertificate | None) -> None:
        if fault := handshake_of(connection).fault:
            self.log("client-certificate-refused", reason=fault)
        elif client is not None:
            named = client.user or '(client_user is "any", or its field holds no name, or several)'
            self.log("client-certificate", subject=client.subject, names=named, fingerprint=client.fingerprint)
        elif (shown := certificate_of_endpoint(connection)) is not None:
            # Nobody's name: no domain has asked for it, so none would take it for its users.
            fingerprint = shown.fingerprint(hashes.SHA256()).hex()
            self.log("client-certificate", subject=shown.subject.rfc4514_string(), fingerprint=fingerprint)

    def _handshake_fault(self, reason: str) -> str:
        handle = getattr(self.transport, "getHandle", lambda: None)()
        return failure_reason(handle, reason) if isinstance(handle, SSL.Connection) else reason

    def _forget(self) -> None:
        if self._counted:
            self._counted = False
            self._context.counts.close(self._share, self._log.user, self)
            self._context.open_connections.discard(self)
