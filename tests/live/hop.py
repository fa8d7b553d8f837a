"""A next hop in threads, on loopback, that behaves as each test wants."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, Self

import trustme

EHLO = (b"250-hop.example.net", b"250-8BITMIME", b"250-SIZE 1000000", b"250 AUTH PLAIN LOGIN")


class Hop:
    """Answers as SMTP does; `replies` replaces the answer to a word (b"." is the end of the message).

    A reply is bytes, None to close without a word, or a callable that gets this hop and returns one of these.
    """

    def __init__(
        self, ca: trustme.CA, *, implicit: bool = False, starttls: bool = True, name: str = "localhost"
    ) -> None:
        self.replies: dict[bytes, Any] = {}
        self.messages: list[bytes] = []
        """What was accepted, dot-dot_stuffed as it came."""
        self.commands: list[bytes] = []
        self.connections = 0
        self.stuck = False
        """Read no more."""
        self.released = threading.Event()
        """Ends whatever a slow reply waits for."""
        self._implicit = implicit
        self._starttls = starttls
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self._listener.close()

    def password(self) -> bytes:
        """What came with AUTH PLAIN."""
        (line,) = [command for command in self.commands if command.startswith(b"AUTH PLAIN")]
        return base64.b64decode(line.split()[2])

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            opened.push(lambda *_exc: connection.close())
            if self._implicit:
                connection = self._context.wrap_socket(connection, server_side=True)
            file: BinaryIO = connection.makefile("rwb")  # type: ignore[assignment]
            if not self._say(file, b"", b"220 hop.example.net ESMTP"):
                return
            secured = self._implicit
            while line := file.readline():
                self.commands.append(line.rstrip())
                word = line.split()[0].upper() if line.strip() else b""
                if word == b"EHLO":
                    offered = EHLO if secured or not self._starttls else (EHLO[0], b"250-STARTTLS", *EHLO[1:])
                    good = self._say(file, word, b"\r\n".join(offered))
                elif word == b"STARTTLS":
                    good = self._say(file, word, b"220 go on")
                    if good and word not in self.replies:
                        connection = self._context.wrap_socket(connection, server_side=True)
                        file = connection.makefile("rwb")  # type: ignore[assignment]
                        secured = True
                elif word == b"AUTH":
                    good = self._say(file, word, b"235 2.7.0 welcome")
                elif word == b"DATA":
                    good = self._say(file, word, b"354 go on")
                    if good and word not in self.replies:
                        good = self._take(file)
                elif word == b"QUIT":
                    self._say(file, word, b"221 2.0.0 bye")
                    return
                else:
                    good = self._say(file, word, b"250 2.1.0 ok")
                if self.stuck:
                    self.released.wait(30)
                if not good or self.stuck:
                    return

    def _take(self, file: BinaryIO) -> bool:
        lines = []
        while (line := file.readline()) != b".\r\n":
            if not line:
                return False
            lines.append(line)
        if b"." not in self.replies:
            self.messages.append(b"".join(lines))
        return self._say(file, b".", b"250 2.0.0 taken as 4711")

    def _say(self, file: BinaryIO, word: bytes, usual: bytes) -> bool:
        reply = self.replies.get(word, usual)
        if callable(reply):
            reply = reply(self)
        if reply is None:
            file.raw.close() if hasattr(file, "raw") else file.close()
            return False
        file.write(reply + b"\r\n")
        file.flush()
        return True
