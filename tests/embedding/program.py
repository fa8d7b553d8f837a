"""A Twisted program other than `twistd mailserver` that serves the demonstration's mail, and clients of it."""

from __future__ import annotations

import imaplib
import os
import poplib
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tests.server import HAND_OVER, ROOT, make_demonstration

START_TIME = 60
_LISTENER = re.compile(r"\[\[listener\]\]\n(?:.+\n)+")


def make_files(directory: Path) -> None:
    """The demonstration's accounts and certificates, and a configuration `mail.toml` without listeners."""
    make_demonstration(directory, 20000)
    made = directory / "mailserver.toml"
    (directory / "mail.toml").write_text(_LISTENER.sub("", made.read_text()))
    made.unlink()


def accounts(directory: Path) -> dict[str, str]:
    """User name -> password."""
    lines = (directory / "accounts.txt").read_text().split()
    return dict(line.split(":", 1) for line in lines)


def children(process: int) -> list[int]:
    """The children of a process."""
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = each.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == process:
            found.append(int(text.split()[0]))
    return found


class Program:
    """One that runs `command` in a directory; it ends with the block."""

    def __init__(self, directory: Path, command: list[str], handed_over: list[socket.socket] | None = None) -> None:
        self.log = directory / "program.log"
        given = [each.fileno() for each in handed_over or ()]
        before = [sys.executable, "-c", HAND_OVER, *map(str, given)] if given else []
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*before, *command],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                pass_fds=given,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait_for(self, place: int | Path) -> None:
        """Wait until it listens there."""
        end = time.monotonic() + START_TIME
        while time.monotonic() < end:
            with socket.socket(socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET) as probe:
                try:
                    probe.connect(str(place) if isinstance(place, Path) else ("127.0.0.1", place))
                except OSError:
                    assert self.process.poll() is None, self.log.read_text()
                    time.sleep(0.05)
                else:
                    return
        raise AssertionError(self.log.read_text())

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_TIME)


class Clients:
    """Real clients, for the user "anna@example.test" but for what a test says."""

    def __init__(self, directory: Path) -> None:
        self.context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
        self.user = "anna@example.test"
        self.password = accounts(directory)[self.user]

    def secure(self, port: int, name: str) -> ssl.SSLSocket:
        """A connection by implicit TLS, whose certificate must be that of the name."""
        return self.context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname=name)

    def imap(self, port: int) -> imaplib.IMAP4:
        """A client that has not logged in."""
        client = imaplib.IMAP4("127.0.0.1", port, timeout=20)
        client.host = "localhost"  # the name for STARTTLS
        return client

    def imaps(self, port: int, name: str = "localhost") -> imaplib.IMAP4:
        """The same by implicit TLS."""
        secure = self.secure

        class Client(imaplib.IMAP4):
            def _create_socket(self, timeout: float | None) -> Any:
                del timeout
                return secure(port, name)

        return Client("127.0.0.1", port)

    def pop3(self, port: int, *, implicit_tls: bool = False) -> poplib.POP3:
        """A client that has not logged in."""
        secure = self.secure

        class Client(poplib.POP3):
            def _create_socket(self, timeout: float) -> Any:
                return (
                    secure(port, "localhost")
                    if implicit_tls
                    else socket.create_connection(("127.0.0.1", port), timeout)
                )

        client = Client("127.0.0.1", port, timeout=20)
        client.host = "localhost"
        return client

    def submission(self, port: int, first: bytes = b"") -> smtplib.SMTP:
        """A client that has not logged in; `first` is sent before it begins."""

        class Client(smtplib.SMTP):
            def _get_socket(self, host: str, port: int, timeout: float) -> Any:
                connected = socket.create_connection((host, port), timeout)
                connected.sendall(first)
                return connected

        client = Client("127.0.0.1", port, timeout=20)
        client._host = "localhost"  # type: ignore[attr-defined]
        return client

    def log_in(self, client: imaplib.IMAP4) -> None:
        """Log in and look at INBOX."""
        assert client.login(self.user, self.password)[0] == "OK"
        assert client.select("INBOX")[0] == "OK"
        client.logout()
