"""Addresses of this server's listeners as seen from this machine, and the dialogue before TLS.

The protocol texts are repeated here, independent of the server's own: RFC 3501 6.2.1, RFC 2595 4 (POP3), RFC 3207 (SMTP and
LMTP).
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Iterator
from typing import Final

from attrs import frozen

from mailserver.config.model import Config, Listener

PATIENCE: Final = 5.0
"""Timeout of each answer, in seconds."""
AT_ONCE: Final = 8
"""Maximum concurrent connections, if a listener accepts twice as many from one address."""
MOST: Final = 65536
"""Maximum length of an answer, in octets."""


class NotReached(Exception):
    """No connection; the argument says why."""


class NotOffered(Exception):
    """The listener does not start TLS; the argument is its answer."""


@frozen
class Place:
    """One address of a listener."""

    listener: Listener
    address: str
    """An IP address that can be reached locally, or the path of a socket."""

    def __str__(self) -> str:
        return f"{self.listener.protocol} {self.where}"

    @property
    def where(self) -> str:
        """Address and port, or the path of the socket."""
        if self.listener.socket is not None:
            return self.address
        port = self.listener.tcp_port
        return f"[{self.address}]:{port}" if ":" in self.address else f"{self.address}:{port}"

    @property
    def has_tls(self) -> bool:
        """Does it offer implicit TLS or STARTTLS?"""
        return self.listener.implicit_tls or self.listener.starttls

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """Connect, and send a PROXY header if one is expected. Raises: NotReached."""
        listener = self.listener
        try:
            if listener.socket is not None:
                opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                opened.settimeout(PATIENCE)
                opened.connect(self.address)
            else:
                opened = socket.create_connection((self.address, listener.tcp_port), PATIENCE)
        except OSError as error:
            raise NotReached(error.strerror or str(error)) from error
        with opened:
            if listener.socket is None and listener.proxy_from:
                own = ipaddress.ip_address(opened.getsockname()[0])
                if any(own in ipaddress.ip_network(network) for network in listener.proxy_from):
                    opened.sendall(b"PROXY UNKNOWN\r\n")
            yield opened


def places(config: Config) -> list[Place]:
    """Return all listener addresses in the configuration's order; a wildcard address becomes the loopback address."""
    return [
        Place(listener, address)
        for listener in config.listeners
        for address in (
            [str(listener.socket)] if listener.socket is not None else map(_reachable, listener.bind_addresses)
        )
    ]


def at_once(config: Config) -> int:
    """Return how many connections may be open at once."""
    return max(1, min(AT_ONCE, config.limits.unauthenticated_per_address // 2))


def _reachable(address: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound


@frozen
class Words:
    """The dialogue of a protocol up to STARTTLS."""

    greeting: bytes
    """Start of the line that ends the greeting; likewise below."""
    ask: bytes
    """The command that lists extensions."""
    asked: bytes
    offer: bytes
    """The word in that list that offers STARTTLS."""
    start: bytes
    started: bytes
    harmless: bytes
    """A command that is always answered; `answered` is the start of the answer."""
    answered: bytes
    passwords: tuple[bytes, ...]
    """Words in the list that invite passwords."""
    closed: bytes = b""
    """A word in the list that forbids LOGIN."""


WORDS: Final = {
    "imap": Words(
        b"* OK",
        b"p1 CAPABILITY\r\n",
        b"p1 OK",
        b"STARTTLS",
        b"p2 STARTTLS\r\n",
        b"p2 OK",
        b"p3 NOOP\r\n",
        b"p3 ",
        (b"AUTH=PLAIN", b"AUTH=LOGIN"),
        b"LOGINDISABLED",
    ),
    "pop3": Words(
        b"+OK",
        b"CAPA\r\n",
        b".",
        b"STLS",
        b"STLS\r\n",
        b"+OK",
        b"CAPA\r\n",
        b"+OK",
        (b"USER", b"PLAIN", b"LOGIN"),
    ),
    "submission": Words(
        b"220 ",
        b"EHLO probe.invalid\r\n",
        b"250 ",
        b"STARTTLS",
        b"STARTTLS\r\n",
        b"220 ",
        b"NOOP\r\n",
        b"250 ",
        (b"PLAIN", b"LOGIN"),
    ),
    "lmtp": Words(
        b"220 ",
        b"LHLO probe.invalid\r\n",
        b"250 ",
        b"STARTTLS",
        b"STARTTLS\r\n",
        b"220 ",
        b"NOOP\r\n",
        b"250 ",
        (),
    ),
}
"""By protocol family."""


def expect(connection: socket.socket, wanted: bytes) -> bytes:
    """Read until a whole line begins with `wanted`; return all octets. Raises: NotOffered, NotReached."""
    received = b""
    end = time.monotonic() + PATIENCE
    try:
        while not any(line.startswith(wanted) for line in received.split(b"\r\n")[:-1]):
            connection.settimeout(max(0.01, end - time.monotonic()))
            piece = connection.recv(4096)
            received += piece
            last = received.split(b"\r\n")[-2:-1]
            if not piece or len(received) > MOST or (last and _is_refusal(last[0])):
                raise NotOffered(shown(received))
    except OSError as error:
        raise NotReached(f"no answer: {error.strerror or error}") from error
    return received


def _is_refusal(line: bytes) -> bool:
    return line.startswith((b"-ERR", b"4", b"5", b"* BYE", b"p1 NO", b"p1 BAD", b"p2 NO", b"p2 BAD"))


def shown(received: bytes) -> str:
    """Return the last line received, for people."""
    lines = received.split(b"\r\n")
    line = next((line for line in reversed(lines) if line), b"")
    return ascii(line.decode("utf-8", "replace"))[1:-1][:200] or "nothing"


def begin(connection: socket.socket, family: str) -> bytes:
    """Run the dialogue up to the list of extensions, and return that. Raises: NotOffered, NotReached."""
    words = WORDS[family]
    try:
        expect(connection, words.greeting)
        connection.sendall(words.ask)
        return expect(connection, words.asked)
    except OSError as error:
        raise NotReached(error.strerror or str(error)) from error


def start_tls(connection: socket.socket, family: str) -> bytes:
    """Run the dialogue until the handshake may begin; return the list of extensions. Raises: NotOffered, NotReached."""
    words = WORDS[family]
    offered = begin(connection, family)
    if words.offer not in offered.upper().replace(b"-", b" ").replace(b"\r\n", b" ").split(b" "):
        raise NotOffered(f"{words.offer.decode()} is not in the list of extensions")
    try:
        connection.sendall(words.start)
        expect(connection, words.started)
    except OSError as error:
        raise NotReached(error.strerror or str(error)) from error
    return offered


def invites_password(offered: bytes, family: str) -> bool:
    """Does a list of extensions, sent without TLS, invite passwords?"""
    words = WORDS[family]
    listed = offered.upper().replace(b"\r\n", b" ").split(b" ")
    if words.closed:
        return words.closed not in listed or any(word in listed for word in words.passwords)
    return any(word in listed for word in words.passwords)
