"""A client that sends any octets it likes, and reads answers strictly: for attacks on a real server."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import re
import select
import socket
import ssl
import sys
import time
from base64 import b64encode
from functools import cache
from typing import Self

from tests.server import Server

TIMEOUT = 90.0
"""Seconds until an answer is given up: generous, the machine may be busy."""
PIECE = 16384
"""Octets of one send."""
IMPLICIT_TLS = frozenset({"imaps", "pop3s", "submissions"})


_numbers = itertools.count()


@cache
def _context(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


def until_stalled(connection: socket.socket, request: int) -> None:
    """Wait until the server moves no octet more; `request`: FIONREAD for its octets to us, TIOCOUTQ for ours to it."""
    end, looks = time.monotonic() + TIMEOUT, [0]
    while looks[-1] == 0 or looks[-10:].count(looks[-1]) < 10:
        assert time.monotonic() < end, "it does not come to a stop"
        time.sleep(0.05)
        looks.append(int.from_bytes(fcntl.ioctl(connection, request, bytes(4)), sys.byteorder))


class Client:
    """One connection. `line` and `reply` raise EOFError when the server has ended it."""

    def __init__(self, server: Server, protocol: str, *, timeout: float = TIMEOUT, receive_buffer: int = 0) -> None:
        self.protocol = protocol.rstrip("s") if protocol in IMPLICIT_TLS else protocol
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(timeout)
        raw.connect(("127.0.0.1", server.port(protocol)))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket: socket.socket = raw
        self._context = _context(str(server.ca))
        self._buffer = bytearray()
        self._unsent = memoryview(b"")
        self._tags = itertools.count()
        if protocol in IMPLICIT_TLS:
            self.start_tls()
        self.greeting = self.reply()

    def start_tls(self) -> None:
        """Do the handshake."""
        self.socket = self._context.wrap_socket(self.socket, server_hostname="localhost")

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- Octets

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_cut(self, data: bytes) -> bool:
        """Send what the server may refuse to read to its end; was it taken?"""
        try:
            self.socket.sendall(data)
        except (OSError, ssl.SSLError):
            return False
        return True

    def send_while_reading(self, data: bytes) -> None:
        """Send as much as the server takes each time that an answer is waited for.

        A thread of its own for the sending is no way: two calls at once on one SSL object are not defined.
        """
        assert not self._unsent
        self._unsent = memoryview(data)

    def _receive(self) -> bytes:
        if not self._unsent:
            return self.socket.recv(65536)
        timeout = self.socket.gettimeout()
        self.socket.settimeout(0)
        try:
            while True:
                with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    while self._unsent:
                        # OpenSSL wants the same octets again after a call that would block: the front of the rest.
                        self._unsent = self._unsent[self.socket.send(self._unsent[:PIECE]) :]
                with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    return self.socket.recv(65536)
                readable, writable, _ = select.select([self.socket], [self.socket] * bool(self._unsent), [], timeout)
                if not readable and not writable:
                    raise TimeoutError
        finally:
            self.socket.settimeout(timeout)

    def _fill(self) -> None:
        try:
            data = self._receive()
        except (ConnectionError, ssl.SSLEOFError):
            data = b""
        if not data:
            raise EOFError(bytes(self._buffer))
        self._buffer += data

    def read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def line(self) -> bytes:
        """The next line without its CRLF; a line with a bare CR or LF fails."""
        start = 0
        while (end := self._buffer.find(b"\n", start)) < 0:
            start = len(self._buffer)
            self._fill()
        data = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        assert data.endswith(b"\r\n"), data[:200]
        assert b"\r" not in data[:-2], data[:200]
        return data[:-2]

    def to_the_end(self) -> bytes:
        """All that still comes; the server must end the connection."""
        with contextlib.suppress(EOFError):
            while True:
                self._fill()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    # --- Answers

    def reply(self) -> bytes:
        """One answer: an IMAP line with its literals, an SMTP reply with all its lines, a POP3 line."""
        line = self.line()
        if self.protocol == "imap":
            while found := re.search(rb"\{([0-9]+)\}\Z", line):
                line += b"\r\n" + self.read(int(found[1]))
                line += self.line()
        elif self.protocol in ("submission", "lmtp"):
            assert re.match(rb"[2345][0-9][0-9][ -]", line), line
            while line[-len(line.rpartition(b"\n")[2]) :][3:4] == b"-":
                line += b"\n" + self.line()
        return line

    def ask(self, data: bytes) -> bytes:
        """Send a command line and read one answer."""
        self.send(data + b"\r\n")
        return self.reply()

    def text(self) -> bytes:
        """A POP3 multi-line text, its dot-stuffing undone."""
        start = 0
        while not self._buffer.startswith(b".\r\n") and (end := self._buffer.find(b"\r\n.\r\n", start)) < 0:
            start = max(0, len(self._buffer) - 4)
            self._fill()
        if self._buffer.startswith(b".\r\n"):
            del self._buffer[:3]
            return b""
        lines = self.read(end + 5)[:-3]
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", lines)
        return (b"\r\n" + lines).replace(b"\r\n.", b"\r\n")[2:]

    def command(self, text: bytes, *literals: bytes) -> list[bytes]:
        """An IMAP command, whose `{}` are literals, and all its answers; the last one is the tagged one, less its tag."""
        tag = b"t%d" % next(self._tags)
        parts = (tag + b" " + text).split(b"{}")
        assert len(parts) == len(literals) + 1
        data = parts[0]
        for literal, part in zip(literals, parts[1:], strict=True):
            data += b"{%d+}\r\n" % len(literal) + literal + part
        self.send(data + b"\r\n")
        return self.answers(tag)

    def answers(self, tag: bytes) -> list[bytes]:
        found: list[bytes] = []
        while True:
            line = self.reply()
            if not line.startswith(b"* "):
                assert line.startswith(tag + b" "), line[:200]
                return [*found, line[len(tag) + 1 :]]
            assert not line.startswith(b"* BYE"), line
            found.append(line)

    def count(self, text: bytes) -> int:
        """Octets of what answers an IMAP command, less its tag; it is not kept, and the last line must be OK."""
        tag = b"t%d" % next(self._tags)
        self.send(tag + b" " + text + b"\r\n")
        counted = 0
        while not (last := re.search(rb"(?:\A|\n)%b ([^\r\n]*)\r\n\Z" % tag, self._buffer[-300:])):
            self._fill()
            counted += max(0, len(self._buffer) - 300)
            del self._buffer[:-300]
        counted += len(self._buffer) - len(tag)
        self._buffer.clear()
        assert last[1].startswith(b"OK"), bytes(last[1])
        return counted

    def in_step(self) -> None:
        """The next command gets its own answer and nothing else comes."""
        if self.protocol == "imap":
            assert self.command(b"NOOP")[-1].startswith(b"OK"), "NOOP"
        elif self.protocol == "pop3":
            self.send(b"CAPA\r\n")
            assert self.line().startswith(b"+OK")
            assert b"UIDL\r\n" in self.text()
        else:
            assert self.ask(b"NOOP") == b"250 2.0.0 nothing done"
        assert not self._buffer, bytes(self._buffer[:200])


def plain(user: str, password: str) -> bytes:
    """SASL PLAIN's response."""
    return b64encode(f"\0{user}\0{password}".encode())


def log_in(server: Server, protocol: str, user: str, **options: int) -> Client:
    """A client that has logged in (or said LHLO)."""
    client = Client(server, protocol, **options)
    password = server.accounts[user]
    if client.protocol == "imap":
        assert client.command(f'LOGIN "{user}" "{password}"'.encode())[-1].startswith(b"OK")
    elif client.protocol == "pop3":
        assert client.ask(b"AUTH PLAIN " + plain(user, password)).startswith(b"+OK")
    elif client.protocol == "submission":
        assert client.ask(b"EHLO client.example.test").startswith(b"250-")
        assert client.ask(b"AUTH PLAIN " + plain(user, password)).startswith(b"235")
    else:
        assert client.ask(b"LHLO client.example.test").startswith(b"250-")
    return client


def put_foreign(server: Server, user: str, message: bytes) -> None:
    """Into the INBOX as other programs do, that have limits of their own."""
    root, name = server.maildir(user), f"{1_700_000_000 + next(_numbers)}.M1P1.elsewhere"
    (root / "tmp" / name).write_bytes(message)
    (root / "tmp" / name).rename(root / "new" / name)


def deliver(server: Server, user: str, message: bytes) -> None:
    """By LMTP."""
    with log_in(server, "lmtp", user) as client:
        assert client.ask(b"MAIL FROM:<>").startswith(b"250")
        assert client.ask(f"RCPT TO:<{user}>".encode()).startswith(b"250")
        assert client.ask(b"DATA").startswith(b"354")
        client.send(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")
        answer = client.reply()
        assert answer.startswith(b"250"), answer
