"""What Dovecot's `ssl` and `auth_allow_cleartext` mean, as a table, and a client that looks whether a server keeps to it.

Dovecot takes a connection from an address to itself as secured. 127.0.0.1 and 127.0.0.2 are two addresses.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from typing import Any, Self

from attrs import frozen

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
"""Where a client of a listener at 127.0.0.1 comes from."""


@frozen
class Open:
    """What is open to a client without TLS."""

    starttls: bool
    passwords: bool
    proofs: bool
    """Mechanisms that send no password."""


TABLE = {
    ("no", False, HERE): Open(starttls=False, passwords=True, proofs=True),
    ("no", False, ELSEWHERE): Open(starttls=False, passwords=False, proofs=True),
    ("no", True, HERE): Open(starttls=False, passwords=True, proofs=True),
    ("no", True, ELSEWHERE): Open(starttls=False, passwords=True, proofs=True),
    ("yes", False, HERE): Open(starttls=True, passwords=True, proofs=True),
    ("yes", False, ELSEWHERE): Open(starttls=True, passwords=False, proofs=True),
    ("yes", True, HERE): Open(starttls=True, passwords=True, proofs=True),
    ("yes", True, ELSEWHERE): Open(starttls=True, passwords=True, proofs=True),
    ("required", False, HERE): Open(starttls=True, passwords=True, proofs=True),
    ("required", False, ELSEWHERE): Open(starttls=True, passwords=False, proofs=False),
}
"""By ssl, auth_allow_cleartext, and the client's address. Dovecot refuses required with auth_allow_cleartext = yes."""


def look(family: str, port: int, source: str, user: str, password: str) -> Open:
    """What a server offers without TLS, made sure of by trying it."""
    with Dialogue(family, port, source) as client:
        listed = client.listed()
    with Dialogue(family, port, source) as client:
        assert client.starts_tls() == listed.starttls
    with Dialogue(family, port, source) as client:
        assert client.takes_password(user, password) == listed.passwords
    with Dialogue(family, port, source) as client:
        assert client.takes_plain(user, password) == listed.passwords
    with Dialogue(family, port, source) as client:
        assert client.begins_scram(user) == listed.proofs
    return listed


class Dialogue:
    """One connection in clear text."""

    def __init__(self, family: str, port: int, source: str) -> None:
        self._family = family
        self._socket = socket.create_connection((HERE, port), 30, source_address=(source, 0))
        self._file: Any = self._socket.makefile("rb")
        self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._socket.close()

    def listed(self) -> Open:
        words = self._words()
        mechanisms = {word.removeprefix("AUTH=") for word in words if word.startswith("AUTH=")}
        if self._family != "imap":
            mechanisms = words
        passwords = "PLAIN" in mechanisms
        if self._family == "imap":
            assert passwords == ("LOGINDISABLED" not in words)
        if self._family == "pop3":
            assert passwords == ("USER" in words)
        return Open(
            starttls=bool(words & {"STARTTLS", "STLS"}), passwords=passwords, proofs="SCRAM-SHA-256" in mechanisms
        )

    def starts_tls(self) -> bool:
        if self._family == "submission":
            self._words()
        said = {"imap": b"a STARTTLS", "pop3": b"STLS", "submission": b"STARTTLS"}[self._family]
        return self._ask(said, _tagged).startswith((b"a OK", b"+OK", b"220"))

    def takes_password(self, user: str, password: str) -> bool:
        """By the protocol's own command, where it has one."""
        if self._family == "imap":
            return self._ask(f"a LOGIN {user} {password}".encode(), _tagged).startswith(b"a OK")
        if self._family == "submission":
            return self.takes_plain(user, password)
        self._ask(f"USER {user}".encode())
        return self._ask(f"PASS {password}".encode()).startswith(b"+OK")

    def takes_plain(self, user: str, password: str) -> bool:
        return self._authenticate(b"PLAIN", f"\0{user}\0{password}".encode()).startswith((b"a OK", b"+OK", b"235"))

    def begins_scram(self, user: str) -> bool:
        """Is there a challenge?"""
        return self._authenticate(b"SCRAM-SHA-256", f"n,,n={user},r=abcdefghijkl".encode()).startswith((b"+ ", b"334"))

    def _authenticate(self, mechanism: bytes, initial: bytes) -> bytes:
        if self._family == "submission":
            self._words()
        command = b"a AUTHENTICATE" if self._family == "imap" else b"AUTH"
        return self._ask(b"%b %b %b" % (command, mechanism, base64.b64encode(initial)), _tagged)

    def _words(self) -> set[str]:
        command, last = {
            "imap": (b"a CAPABILITY", lambda line: line.startswith(b"a ")),
            "pop3": (b"CAPA", lambda line: line == b".\r\n"),
            "submission": (b"EHLO client.example.net", lambda line: line.startswith(b"250 ")),
        }[self._family]
        self._socket.sendall(command + b"\r\n")
        lines: list[bytes] = []
        while not lines or not last(lines[-1]):
            lines.append(self._line())
        return set(b" ".join(lines).decode().replace("250-", " ").split())

    def _ask(self, command: bytes, last: Callable[[bytes], bool] = bool) -> bytes:
        self._socket.sendall(command + b"\r\n")
        while not last(line := self._line()):
            pass
        return line

    def _line(self) -> bytes:
        line: bytes = self._file.readline()
        assert line, "the connection ended"
        return line


def _tagged(line: bytes) -> bool:
    """Not what IMAP says without being asked."""
    return not line.startswith(b"* ")
