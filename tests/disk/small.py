"""A server whose mail lies on a small file system of its own, which exists in a mount namespace only."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.wire import Client, log_in
from tests.server import Server

USER, OTHER, ABSENT = "u000@example.test", "u001@example.test", "u002@example.test"
TEXT_SIZE = 200_000


def fill(path: str) -> None:
    """Take all that is left of a small file system, in octets and in inodes."""
    with contextlib.suppress(OSError), open(os.path.join(path, "hog"), "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    if os.statvfs(path).f_ffree > 100_000:
        # It has as many as there is memory for: octets are what runs out.
        return
    with contextlib.suppress(OSError):
        for number in range(100_000):
            with open(os.path.join(path, f"hog{number}"), "x"):
                pass


def free(path: str) -> None:
    """Undo `fill`."""
    for name in os.listdir(path):
        if name.startswith("hog"):
            os.unlink(os.path.join(path, name))


class SmallDisk:
    """The file system, held by a process that sleeps in its namespace."""

    def __init__(self, directory: Path, options: str, place: Path | None = None) -> None:
        """`place`: a directory of its own, whose content is kept; the mail root if None, which is empty."""
        self.mail = directory / "mail" if place is None else place
        kept = f"{self.mail}.kept"
        before, behind = (
            ("true", "true")
            if place is None
            else (
                f"cp -a '{self.mail}' '{kept}'",
                f"cp -a '{kept}/.' '{self.mail}' && rm -r '{kept}'",
            )
        )
        mount = f"mount -t tmpfs -o {options},mode=700 tmpfs '{self.mail}'"
        script = f"{before} && {mount} && {behind} && echo mounted && exec sleep 3600"
        self.holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"mounted\n"

    @property
    def root(self) -> str:
        """The mail root, as seen from outside."""
        return f"/proc/{self.holder.pid}/root{self.mail}"

    def fill(self) -> None:
        fill(self.root)

    def free(self) -> None:
        free(self.root)

    def close(self) -> None:
        self.holder.kill()
        self.holder.wait()


class SmallServer(Server):
    """A server that sees that file system."""

    disk: SmallDisk

    def command(self, *options: str) -> list[str]:
        return ["nsenter", "--target", str(self.disk.holder.pid), "--mount", *super().command(*options)]


@contextlib.contextmanager
def small_server(directory: Path, options: str) -> Iterator[tuple[Server, SmallDisk]]:
    server = SmallServer(directory, users=3)
    disk = server.disk = SmallDisk(directory, options)
    try:
        with server:
            yield server, disk
    finally:
        disk.close()


def kill(server: Server) -> None:
    """As a power cut would, but that the page cache survives."""
    assert server.process is not None
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server.process = None


def message(subject: str, size: int = TEXT_SIZE) -> bytes:
    head = f"From: <{USER}>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@example.test>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\r\n"
    line = b"x" * 72 + b"\r\n"
    return head.encode() + line * (size // len(line)) + b"end of " + subject.encode() + b"\r\n"


def subject_of(text: bytes) -> str:
    found = re.search(rb"^Subject: (\S+)\r\n", text, re.MULTILINE)
    assert found is not None, text[:500]
    return found[1].decode()


def send(client: Client, subject: str, recipient: str = USER, size: int = TEXT_SIZE) -> bytes:
    """A message by LMTP or submission; the first reply that is no success, or the last."""
    for command in (f"MAIL FROM:<{USER}>", f"RCPT TO:<{recipient}>", "DATA"):
        answer = client.ask(command.encode())
        if answer[:1] not in (b"2", b"3"):
            client.ask(b"RSET")
            return answer
    client.send(message(subject, size) + b".\r\n")
    return client.reply()


def contents(server: Server, user: str = USER, mailbox: str = "INBOX") -> dict[int, str]:
    """UID -> subject of every message, each of which must be whole."""
    with log_in(server, "imaps", user) as client:
        assert client.command(b"EXAMINE " + mailbox.encode())[-1].startswith(b"OK")
        answers = client.command(b"UID FETCH 1:* (UID BODY.PEEK[])")
        assert answers[-1].startswith(b"OK"), answers[-1]
        found = {}
        for answer in answers[:-1]:
            subject = subject_of(answer)
            assert b"\r\nend of " + subject.encode() + b"\r\n" in answer, subject
            uid = re.search(rb"UID ([0-9]+)", answer[:100] + answer[-100:])
            assert uid is not None
            found[int(uid[1])] = subject
        return found
