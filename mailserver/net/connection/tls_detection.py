"""Detection of TLS by the first octets: at a port of STARTTLS, and its absence at a port of implicit TLS.

Users confuse SSL/TLS, STARTTLS and their ports, and then each side waits for the other until something times out. Here
both mistakes end at once, with a message where the client can read one.

*   Port of implicit TLS: clear text, or nothing for FIRST_OCTETS_TIME, gets one line of the protocol that names the right
    port and mode, then the end. Nothing is sent in clear text once an octet of a ClientHello has come. A web browser's
    request gets no answer at all at a port of mail: its page must not be able to read one.
*   Port of STARTTLS: the greeting may be held back for `greeting_delay`. A ClientHello that comes before it is served as
    implicit TLS, or refused by an alert. One that comes behind the greeting cannot be answered any more.

No text of these protocols begins with an octet that a ClientHello begins with, so the first one decides.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Final, cast

from mailserver.net.connection.listener_context import ListenerContext
from mailserver.net.connection.stream import Stream
from mailserver.session.lines import is_http

FIRST_OCTETS_TIME: Final = 10.0
"""Seconds in which a client must begin TLS at a port of implicit TLS."""
REJECTION_TIME: Final = 5.0
"""Seconds that a client has to read why it is rejected, and to close."""
LONGEST_FIRST_LINE: Final = 512
"""Octets of clear text after which no end of the line is waited for."""
ALERT: Final = b"\x15\x03\x01\x00\x02\x02\x0a"
"""A record of TLS with the fatal alert unexpected_message (RFC 8446 6.2), as any version reads it."""

_HANDSHAKE: Final = 0x16
_CLIENT_HELLO: Final = b"\x01"


def begins_tls(data: bytes) -> bool:
    """Are these the first octets of a ClientHello: of a record (RFC 8446 5.1), or of SSLv2's form (RFC 5246 E.2)?"""
    return data[0] == _HANDSHAKE or (data[0] >= 0x80 and data[2:3] in (b"", _CLIENT_HELLO))


class TlsDetection(Stream):
    """The part of a `net.connection.connection.Connection` that judges the first octets."""

    def __init__(self, context: ListenerContext) -> None:
        super().__init__(context)
        self._clear = b""
        """Clear text that came where TLS was due."""
        self._is_rejected = False

    @abstractmethod
    def _start(self) -> None:
        """Begin the session."""

    @abstractmethod
    def _handshake_deadline(self) -> float:
        """The time by which a handshake that begins now must be done."""

    def _await_first(self) -> None:
        """Wait for TLS, delay the greeting, or begin the session."""
        context = self._context
        self._detecting = True
        if context.implicit_tls:
            deadline = self.now() + FIRST_OCTETS_TIME
            self._set_deadline(deadline if self._login_by is None else min(deadline, self._login_by))
        elif context.greeting_delay and context.tls is not None:
            self._set_deadline(self.now() + context.greeting_delay)
        else:
            self._start()

    def _receive_first(self, data: bytes) -> bool:
        """Judge the client's first octets; whether they are for the session."""
        context = self._context
        if not self._clear and context.tls is not None and begins_tls(data):
            self._receive_hello(data)
            return False
        if not context.implicit_tls:
            self._start_without_tls()
            return True
        self._clear += data
        line, end, _rest = self._clear.partition(b"\n")
        if end or len(line) > LONGEST_FIRST_LINE:
            self._send_wrong_port_message("the client sends clear text")
        return False

    def _receive_hello(self, data: bytes) -> None:
        context = self._context
        self._detecting = False
        if self._task is not None:
            reason = "TLS behind the greeting: the client is set to SSL/TLS, and this port is for STARTTLS"
            self.log("tls-at-starttls-port", reason=reason)
            self._closing = True
            self._wake_reader()
        elif context.implicit_tls or context.early_tls == "serve":
            self._begin_tls(data)
        else:
            self.log("tls-at-starttls-port", reason="TLS before the greeting is not served at this port")
            self._reject(ALERT)

    def _start_without_tls(self) -> None:
        self._detecting = False
        if self._task is None:
            self._set_deadline(None)
            self._start()

    def _begin_tls(self, data: bytes) -> None:
        factory = self._context.tls
        assert factory is not None
        layer = self.transport = factory.wrap(cast("Any", self), self.transport)
        self._set_deadline(self._handshake_deadline())
        layer.dataReceived(data)

    def _first_octets_overdue(self) -> None:
        """Go on without the first octets: their time is over."""
        if not self._context.implicit_tls:
            self._start()
        elif self._clear:
            self._send_wrong_port_message("the client sends clear text")
        else:
            self._send_wrong_port_message("the client sends nothing")

    def _send_wrong_port_message(self, reason: str) -> None:
        self._detecting = False
        if self._context.protocol != "https" and is_http(self._clear.partition(b" ")[0].upper()):
            self.log("http-request")
            self._reject(b"")
            return
        self.log("cleartext-at-tls-port", reason=reason)
        port = getattr(cast("Any", self.transport).getHost(), "port", 0)
        self._reject(self._context.wrong_port_message(port))

    def _reject(self, message: bytes) -> None:
        """Send a message, if any, and close. What still comes is read: unread octets would make TCP drop the message."""
        self._finished = self._is_rejected = True
        transport = cast("Any", self.transport)
        transport.write(message)
        transport.loseWriteConnection()
        if not self._lost:
            self._set_deadline(self.now() + REJECTION_TIME)
