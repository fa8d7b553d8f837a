"""A client of raw bytes, and what all families of protocols have in common."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Self

from tests.server import WORKERS, Server

TIMEOUT = 30.0
STARTTLS = {
    "imap": (b"s STARTTLS\r\n", b"s OK"),
    "pop3": (b"STLS\r\n", b"+OK"),
    "submission": (b"STARTTLS\r\n", b"220"),
    "lmtp": (b"STARTTLS\r\n", b"220"),
}
"""The command, and how its positive answer begins."""
GREETING = {"imap": b"* OK", "pop3": b"+OK", "submission": b"220", "lmtp": b"220"}


def family(protocol: str) -> str:
    """ "imap" of "imaps"."""
    return protocol.removesuffix("s") if protocol in {"imaps", "pop3s", "submissions"} else protocol


class Client:
    """One connection."""

    def __init__(
        self,
        server: Server,
        protocol: str,
        *,
        host: str = "127.0.0.1",
        name: str | None = "mail.example.test",
        port: int | None = None,
        tls: bool | None = None,
        before: bytes = b"",
        source: str | None = None,
        read_buffer: int | None = None,
    ) -> None:
        """`name`: SNI. `before`: said ahead of everything, TLS too. `tls`: other than the protocol's own."""
        self.server = server
        self.family = family(protocol)
        self.buffer = b""
        self.context = ssl.create_default_context(cafile=str(server.ca))
        self.name = name
        self.socket: socket.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.settimeout(TIMEOUT)
        if read_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
        if source is not None:
            self.socket.bind((source, 0))
        self.socket.connect((host, port or server.port(protocol)))
        if before:
            self.socket.sendall(before)
        if protocol != self.family if tls is None else tls:
            self.start_tls()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def start_tls(self) -> ssl.SSLSocket:
        """Shake hands."""
        if self.name is None:
            self.context.check_hostname = False
        secured = self.context.wrap_socket(self.socket, server_hostname=self.name)
        self.socket = secured
        return secured

    def upgrade(self) -> Self:
        """STARTTLS and the handshake, after the greeting."""
        command, good = STARTTLS[self.family]
        if self.family in {"submission", "lmtp"}:
            self.hello()
        assert self.ask(command).startswith(good)
        self.start_tls()
        return self

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line; b"" at the end."""
        while b"\r\n" not in self.buffer:
            try:
                data = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError):
                data = b""
            if not data:
                rest, self.buffer = self.buffer, b""
                return rest
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line + b"\r\n"

    def until(self, pattern: bytes) -> list[bytes]:
        """Lines up to the one that matches."""
        lines = []
        while True:
            lines.append(self.line())
            if re.match(pattern, lines[-1]):
                return lines
            assert lines[-1], f"the connection ended: {lines}"

    def rest(self) -> bytes:
        """All that comes until the end."""
        said = b""
        while line := self.line():
            said += line
        return said

    def greeting(self) -> bytes:
        line = self.line()
        assert line.startswith(GREETING[self.family]), line
        return line

    def hello(self) -> list[bytes]:
        """EHLO or LHLO."""
        self.send(b"LHLO client.example.net\r\n" if self.family == "lmtp" else b"EHLO client.example.net\r\n")
        return self.until(rb"250 ")

    def ask(self, command: bytes) -> bytes:
        """One line for one command."""
        self.send(command)
        return self.line()

    def log_in(self, user: str, password: str) -> Self:
        """After the greeting. Fails unless it is accepted."""
        answer = self.try_login(user, password)
        assert re.match(rb"a OK|\+OK|235", answer), answer
        return self

    def try_login(self, user: str, password: str) -> bytes:
        """The answer."""
        if self.family == "imap":
            self.send(f'a LOGIN "{user}" "{password}"\r\n'.encode())
            return self.until(rb"a ")[-1]
        if self.family == "pop3":
            self.ask(f"USER {user}\r\n".encode())
            return self.ask(f"PASS {password}\r\n".encode())
        self.hello()
        return self.ask(b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()) + b"\r\n")

    def is_cut(self) -> bool:
        """Has the server ended it? Waits for that; what it said is dropped."""
        self.rest()
        return True


def logged_in(server: Server, protocol: str, domain: str = "example.test", **more: object) -> Client:
    """A client of the first user of the domain."""
    client = Client(server, protocol, **more)  # type: ignore[arg-type]
    client.greeting()
    return client.log_in(*server.user_of(domain))


def deliver(server: Server, recipient: str, subject: str = "") -> bytes:
    """The reply to a message by LMTP, or to its recipient if that is refused. Its subject is "to RECIPIENT" if none is given."""
    subject = subject or f"to {recipient}"
    with Client(server, "lmtp") as client:
        client.greeting()
        client.send(b"LHLO client.example\r\n")
        client.until(rb"250 ")
        client.ask(b"MAIL FROM:<>\r\n")
        answer = client.ask(f"RCPT TO:<{recipient}>\r\n".encode())
        if not answer.startswith(b"250"):
            return answer
        client.ask(b"DATA\r\n")
        return client.ask(f"Subject: {subject}\r\n\r\nHello\r\n.\r\n".encode())


def memory(pid: int) -> int:
    """Octets of a process, and of those below it, that are their own and in memory."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        found = re.search(r"Private_Dirty:\s+(\d+) kB", file.read())
    assert found is not None
    below = 0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            below += memory(int(child))
    return int(found[1]) * 1024 + below


def counted() -> None:
    """What one worker counts, the others know 100 ms later: wait for that, and for a slow machine."""
    if WORKERS:
        time.sleep(0.5)


def eventually(condition: object, seconds: float = 20) -> None:
    """Wait until a callable says yes."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
