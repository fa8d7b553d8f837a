"""A client that costs little: raw sockets, whole answers, every reply checked."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")


class Imap:
    """One IMAP connection."""

    def __init__(self, port: int, *, tls: Path | None = None, session: ssl.SSLSession | None = None) -> None:
        self.raw: socket.socket | ssl.SSLSocket = socket.create_connection(("127.0.0.1", port), 60)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            context = tls_context(tls)
            self.raw = context.wrap_socket(self.raw, server_hostname="mail.example.test", session=session)
        self.buffer = b""
        self.number = 0
        greeting = self.line()
        assert greeting.startswith(b"* OK"), greeting

    def line(self) -> bytes:
        """One line with its end."""
        while b"\r\n" not in self.buffer:
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line + b"\r\n"

    def _more(self) -> None:
        data = self.raw.recv(1 << 18)
        assert data, "the server closed the connection"
        self.buffer += data

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.raw.sendall(data)

    def command(self, text: bytes) -> bytes:
        """The whole answer of one command, which must be OK."""
        self.number += 1
        tag = b"t%d " % self.number
        self.raw.sendall(tag + text + b"\r\n")
        return self.answer(tag)

    def answer(self, tag: bytes) -> bytes:
        """Everything up to the tagged line, which must be OK."""
        chunks = [self.buffer]
        ending = self.buffer
        mark = b"\r\n" + tag
        while True:
            at = ending.rfind(mark)
            if (at >= 0 or ending.startswith(tag)) and ending.endswith(b"\r\n"):
                break
            data = self.raw.recv(1 << 18)
            assert data, "the server closed the connection"
            chunks.append(data)
            ending = (ending + data)[-4096:] if len(ending) + len(data) > 4096 else ending + data
        self.buffer = b""
        answer = b"".join(chunks)
        last = answer[answer.rfind(mark) + 2 if mark in answer else 0 :]
        assert last.startswith(tag + b"OK"), last[:200]
        return answer

    def login(self, user: str, password: str) -> None:
        """LOGIN."""
        self.command(f'LOGIN "{user}" "{password}"'.encode())

    def close(self) -> None:
        """LOGOUT and the end."""
        self.command(b"LOGOUT")
        self.raw.close()


class Lines:
    """One connection of a line protocol: POP3, LMTP, SMTP."""

    def __init__(self, port: int, *, tls: Path | None = None) -> None:
        self.raw: socket.socket | ssl.SSLSocket = socket.create_connection(("127.0.0.1", port), 60)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.raw = tls_context(tls).wrap_socket(self.raw, server_hostname="mail.example.test")
        self.file = self.raw.makefile("rb")

    def reply(self, expected: bytes) -> bytes:
        """One reply, with SMTP's continuation lines."""
        whole = b""
        while True:
            line = self.file.readline()
            assert line.startswith(expected), line
            whole += line
            if line[3:4] != b"-" or not line[:3].isdigit():
                return whole

    def ask(self, data: bytes, expected: bytes) -> bytes:
        """Send and take the reply."""
        self.raw.sendall(data)
        return self.reply(expected)

    def until_dot(self) -> int:
        """Octets of a POP3 multi-line answer."""
        size = 0
        while (line := self.file.readline()) != b".\r\n":
            assert line
            size += len(line)
        return size

    def lines(self) -> int:
        """Number of lines of a POP3 multi-line answer."""
        count = 0
        while (line := self.file.readline()) != b".\r\n":
            assert line
            count += 1
        return count

    def close(self) -> None:
        """The end."""
        self.file.close()
        self.raw.close()


_contexts: dict[Path, ssl.SSLContext] = {}


def tls_context(ca: Path) -> ssl.SSLContext:
    """A client's context that trusts the run's authority."""
    if ca not in _contexts:
        _contexts[ca] = ssl.create_default_context(cafile=str(ca))
    return _contexts[ca]
