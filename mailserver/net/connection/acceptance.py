"""The way from an accepted socket to a session: the client's address, the limits, and what the endpoint does first.

*   A connection counts against the limits from its beginning to the end of its transport.
*   Where an endpoint reads a PROXY header (`haproxy:`), the session waits for it, and the limits are those of the client in it.
    Until then the connection counts for no address.
*   Where an endpoint has TLS (`ssl:`, `TLSMemoryBIOFactory`), the session waits for the handshake, and is one of implicit
    TLS.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import count
from os import getpid
from time import time
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IHandshakeListener
from zope.interface import implementer

from mailserver.errors import ConnectionLost
from mailserver.net.connection.connection_limits import Address
from mailserver.net.connection.connection_log import ConnectionLog
from mailserver.net.connection.listener_context import ListenerContext
from mailserver.net.connection.proxy_header import HEADER_TIME
from mailserver.net.connection.tls_detection import TlsDetection
from mailserver.net.connection.transports import (
    AnswerBound,
    ProxyHeaderObserver,
    certificate_of_endpoint,
    place_of_host,
    proxy_wrapper,
    tls_connection,
    tls_layer,
)
from mailserver.net.transport.address import address_of
from mailserver.net.transport.tls import tls_info
from mailserver.session.channel import ClientCertificate, ConnectionInfo, TLSInfo
from mailserver.tls.context.handshake import handshake_of

if TYPE_CHECKING:
    from mailserver.net.connection.connection import Connection

HANDSHAKE_TIME: Final = 30.0
"""Seconds for a TLS handshake."""
MIN_LOGIN_TIME: Final = 2.0
"""Seconds in which a client is not evicted for another."""

_serial = count(1)


@implementer(IHandshakeListener)
class Acceptance(TlsDetection):
    """The part of a `net.connection.connection.Connection` that accepts its client."""

    info: ConnectionInfo
    since: float
    """When it was accepted, Unix time."""

    def __init__(self, context: ListenerContext, address: IAddress | None = None) -> None:
        """`address`: the client's, where a trusted proxy names another than the transport's peer."""
        super().__init__(context)
        self._address = address
        self._share: Address = None
        """The address whose share of the limits it takes."""
        self._counted = False
        self._accepted_at = 0.0
        """When it was accepted, or its user has logged out."""
        self._log = ConnectionLog(context)
        self._header: ProxyHeaderObserver | None = None
        """Reads along while the PROXY header is due."""
        self._tls_below = False
        """Is the handshake due that the endpoint does?"""
        self._answer_bound: AnswerBound | None = None

    # --- What Twisted calls

    def connectionMade(self) -> None:
        """Accept the client. What it sends first may decide how the connection goes on."""
        transport = self.transport
        self.since = time()
        self._accepted_at = self.now()
        if tls_connection(transport) is not None:
            self._tls_below = True
            self._context = self._context.over_tls()
        context = self._context
        wrapper = proxy_wrapper(transport)
        if wrapper is not None:
            self._header = ProxyHeaderObserver(wrapper, self._read_header, self._refuse_header)
        session_id = f"{getpid():x}.{next(_serial):x}"
        self.info = self._make_info(session_id, (None, 0) if wrapper is not None else self._peer(), None)
        if context.logs_in:
            self._share = self.info.peer
            if context.counts.banned.is_banned(self._share):
                self._refuse_banned()
                return
            self._login_by = self.now() + context.counts.limits.login_time
        if not context.counts.open(self._share, self if context.logs_in else None):
            self._refuse()
            return
        self._counted = True
        context.event_counters.count("connection", self.info)
        context.open_connections.add(self._connection)
        self._detecting = True
        if wrapper is not None:
            self._set_deadline(self.now() + HEADER_TIME)
        elif self._tls_below:
            self._set_deadline(self._handshake_deadline())
        else:
            self._await_first()

    def handshakeCompleted(self) -> None:
        """Note what the handshake has agreed on, and go on."""
        if self._header is not None and not self._accept_peer():
            return
        if self._tls_below and (layer := tls_layer(self.transport)) is not None:
            self._answer_bound = AnswerBound(layer, lambda: self.sent)
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

    # --- For the limits

    def logged_in(self, user: str, credential: str = "", delegate: str = "") -> None:
        """See Channel."""
        if not self._counted:
            raise ConnectionLost  # it was evicted meanwhile
        self._context.counts.logged_in(self._share, user, self)
        self._log.log_in(user, credential, delegate)
        self._login_by = None

    def logged_out(self) -> None:
        """Count the connection as one that has not logged in; it may be evicted for others after a while."""
        user = self._log.user
        if not self._counted or user is None:
            raise ConnectionLost
        self.log("logout")
        self._log.user, self._log.delegate = None, ""
        self._accepted_at = self.now()
        counts = self._context.counts
        self._login_by = self._accepted_at + counts.limits.login_time
        counts.logged_out(self._share, user, self)

    def evict(self) -> bool:
        """See `connection_limits.EvictableConnection`."""
        if self.now() - self._accepted_at < MIN_LOGIN_TIME:
            return False
        if (unsaid := self._context.counts.count_refused_connection(self._share, self.now())) is not None:
            self.log("connection-cut", reason="another needs its place, and it has not logged in", unsaid=unsaid)
        self._forget()
        self._abort()
        return True

    @property
    def client(self) -> Address:
        """See `connection_limits.EvictableConnection`."""
        return self._share

    def end_banned(self) -> None:
        """See `connection_limits.EvictableConnection`."""
        self._context.event_counters.count("connection-banned", self.info)
        self._forget()
        self._abort()

    # --- The log

    def log(self, event: str, **fields: object) -> None:
        """Log an event of this connection."""
        self._log.event(self.info, event, fields, self.now())

    def bug(self, doing: str) -> None:
        """Log the exception that is being handled, with its traceback."""
        self._log.bug(self.info, doing)

    # --- Inside

    @property
    def _connection(self) -> Connection:
        return cast("Connection", self)

    @abstractmethod
    def _close(self) -> None:
        """Send what was written, and close."""

    def _peer(self) -> tuple[Address, int]:
        """The client's address and port; None and 0 at a Unix socket."""
        transport = self.transport
        given = self._address if proxy_wrapper(transport) is None else None
        return address_of(given if given is not None else cast("Any", transport).getPeer())

    def _make_info(self, session_id: str, peer: tuple[Address, int], tls: TLSInfo | None) -> ConnectionInfo:
        context = self._context
        local = context.local or place_of_host(self.transport)
        allowed = self._may_send_passwords(peer[0])
        return context.connection_info(session_id, peer, tls, local=local, cleartext_allowed=allowed)

    def _may_send_passwords(self, peer: Address) -> bool:
        """May passwords come without TLS?

        "same host" is, as with Dovecot, a client at the address that it connects to, or at a Unix socket.
        """
        cleartext = self._context.cleartext
        if cleartext != "same host":
            return cleartext == "always"
        if proxy_wrapper(self.transport) is not None:
            return False  # the proxy may be on the client's host or on any other
        own, _port = address_of(cast("Any", self.transport).getHost())
        return peer == own

    def _read_header(self) -> None:
        """Go on with the client that the PROXY header names."""
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

    def _refuse_header(self, reason: str) -> None:
        """Abort a connection whose PROXY header is none, or does not come. Anybody can cause the log line, which is bounded."""
        event = "proxy-header-refused"
        if (unsaid := self._context.counts.count_refused_request(None, event, self.now())) is not None:
            self.log(event, reason=reason, **({"unsaid": unsaid} if unsaid else {}))
        self._abort()

    def _accept_peer(self) -> bool:
        """Count the connection for the client of the PROXY header; False if it is refused."""
        self._stop_header()
        self._set_deadline(None)
        if not self._counted:
            return False  # it was evicted meanwhile
        context, peer = self._context, self._peer()
        self.info = self._make_info(self.info.session_id, peer, None)
        if not context.logs_in:
            return True
        context.counts.close(self._share, None, self)
        self._share = peer[0]
        if context.counts.banned.is_banned(self._share):
            self._counted = False
            context.open_connections.discard(self._connection)
            self._refuse_banned()
            return False
        if context.counts.open(self._share, self):
            return True
        self._counted = False
        context.open_connections.discard(self._connection)
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

    def _stop_header(self) -> None:
        if self._header is not None:
            self._header.stop()
            self._header = None

    def _stop_observing(self) -> None:
        self._stop_header()
        if self._answer_bound is not None:
            self._answer_bound.stop()
            self._answer_bound = None

    def _refuse_banned(self) -> None:
        """Close the connection of a banned client, without a greeting. The ban has its line in the log; this is only counted."""
        self._stop_header()
        self._context.event_counters.count("connection-banned", self.info)
        self._finished = True
        self._abort()

    def _refuse(self) -> None:
        context = self._context
        self._stop_header()
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

    def _log_certificate(self, connection: SSL.Connection, client: ClientCertificate | None) -> None:
        if fault := handshake_of(connection).fault:
            self.log("client-certificate-refused", reason=fault)
        elif client is not None:
            named = client.user or '(client_user is "any", or its field holds no name, or several)'
            self.log("client-certificate", subject=client.subject, names=named, fingerprint=client.fingerprint)
        elif (shown := certificate_of_endpoint(connection)) is not None:
            # Without a user: no domain has asked for it, so none trusts it.
            fingerprint = shown.fingerprint(hashes.SHA256()).hex()
            self.log("client-certificate", subject=shown.subject.rfc4514_string(), fingerprint=fingerprint)

    def _forget(self) -> None:
        if self._counted:
            self._counted = False
            self._context.counts.close(self._share, self._log.user, self)
            self._context.open_connections.discard(self._connection)
