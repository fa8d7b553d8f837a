"""Lines that a connection sends to its client outside any session: at the end of the service, and for refusals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mailserver.config.model import Listener

FAREWELLS: Final = {
    "imap": b"* BYE the server is shutting down\r\n",
    "pop3": b"",
    "submission": b"421 4.3.2 shutting down\r\n",
    "lmtp": b"421 4.3.2 shutting down\r\n",
    "auth": b"",
    "lookup": b"",
    "http": b"",
}
REFUSALS: Final = {
    "imap": b"* BYE [LIMIT] too many connections\r\n",
    "pop3": b"-ERR [SYS/TEMP] too many connections\r\n",
    "submission": b"421 4.7.0 too many connections\r\n",
    "lmtp": b"421 4.7.0 too many connections\r\n",
    "auth": b"",
    "lookup": b"",
    "http": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 60\r\nConnection: close\r\n\r\n",
}
_NAMES: Final = {"imap": "IMAP", "pop3": "POP3", "submission": "sending mail"}
_BEFORE: Final = {"imap": "* BYE", "pop3": "-ERR", "submission": "421 4.7.0"}


def wrong_port_message(family: str, port: int, listeners: Iterable[Listener]) -> bytes:
    """The answer to a client that sends clear text to a port of implicit TLS.

    It names the port for STARTTLS, if one of the `listeners` has it. `port` is 0 for a Unix socket.
    """
    if family == "http":
        body = b"This port speaks HTTPS: write https:// instead of http://.\n"
        return (
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (len(body), body)
        )
    here = f"Port {port}" if port else "This socket"
    words = f"{here} is for SSL/TLS: set the security of {_NAMES[family]} to SSL/TLS"
    others = [other.tcp_port for other in listeners if other.protocol == family and other.socket is None]
    if others:
        words += f", or the port to {others[0]} for STARTTLS"
    return f"{_BEFORE[family]} {words}\r\n".encode("ascii")
