"""The first SELECT of a large Maildir on a real server: a process of its own reads it, and nobody waits for that."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from mailserver.store.maildir.home.settings import MANY
from tests.live.client import Client, eventually
from tests.live.conftest import no_bug
from tests.server import WORKERS, Server
from tests.store.disk import scratch

FILES = MANY + 10


@attrs.frozen
class Site:
    """A server, and a user of it with a Maildir that nobody has seen."""

    server: Server
    user: str

    @property
    def box(self) -> Path:
        return self.server.maildir(self.user)

    def log_in(self) -> Client:
        client = Client(self.server, "imaps")
        client.greeting()
        return client.log_in(self.user, self.server.accounts[self.user])

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """The process that reads the mailbox waits for its turn."""
        turn = os.open(self.box / "new", os.O_RDONLY)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield
        finally:
            os.close(turn)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """In memory, where there is some: these are many files."""
    with scratch() as directory, Server(Path(directory), users=5) as server:
        yield server
        no_bug(server.log)


@pytest.fixture
def site(server: Server) -> Site:
    user = next(user for user in server.accounts if user.startswith("u") and not server.maildir(user).exists())
    site = Site(server, user)
    owner = os.stat(server.dir / "mail")
    for part in ("cur", "new", "tmp"):
        (site.box / part).mkdir(parents=True)
    for number in range(FILES):
        os.close(os.open(site.box / f"cur/{1_600_000_000 + number}.M{number}P1.host:2,S", os.O_CREAT, 0o600))
    subprocess.run(["chown", "-R", f"{owner.st_uid}:{owner.st_gid}", str(site.box)], check=True)
    if server.process is None or server.process.poll() is not None:
        server.start()
    return site


def scan_processes(server: Server) -> list[int]:
    """Those of this server: their standard error is its own."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes()
                log = os.readlink(f"/proc/{name}/fd/2")
            except OSError:
                continue
            if b"scan_process" in command and log == str(server.output_path):
                found.append(int(name))
    return found


def selected(lines: list[bytes]) -> tuple[bytes, bytes]:
    """EXISTS and UIDNEXT."""
    text = b"".join(lines)
    exists, uid_next = re.search(rb"\* (\d+) EXISTS", text), re.search(rb"UIDNEXT (\d+)", text)
    assert exists is not None
    assert uid_next is not None
    return exists[1], uid_next[1]


WHOLE = (b"%d" % FILES, b"%d" % (FILES + 1))


def test_clients_are_told_and_others_go_on(site: Site) -> None:
    with site.log_in() as first, site.log_in() as second, site.log_in() as other:
        with site.held_up():
            first.send(b"a SELECT INBOX\r\n")
            assert first.line() == b'* OK [INPROGRESS ("a" NIL NIL)] still at work\r\n'
            second.send(b"b STATUS INBOX (MESSAGES)\r\n")
            assert b'INPROGRESS ("b"' in second.line()
            # The account's thread and the reactor are free.
            other.send(b"c CREATE Other\r\nd STATUS Other (MESSAGES)\r\ne NOOP\r\n")
            assert other.until(rb"e OK")[1].startswith(b"* STATUS")
            # One for each worker that was asked.
            assert 1 <= len(scan_processes(site.server)) <= max(1, WORKERS)
        assert selected(first.until(rb"a OK")) == WHOLE
        assert b"(MESSAGES %d)" % FILES in second.until(rb"b OK")[-2]
        other.send(b"f SELECT INBOX\r\n")
        assert selected(other.until(rb"f OK")) == WHOLE


def test_a_killed_process_is_replaced(site: Site) -> None:
    with site.log_in() as client:
        with site.held_up():
            client.send(b"a SELECT INBOX\r\n")
            eventually(lambda: scan_processes(site.server))
            victims = scan_processes(site.server)
            for victim in victims:  # that of another worker has nothing to do
                os.kill(victim, signal.SIGKILL)
            eventually(lambda: set(scan_processes(site.server)) - set(victims))
        assert selected(client.until(rb"a OK")) == WHOLE


def test_it_goes_on_when_the_client_goes(site: Site) -> None:
    with site.held_up(), site.log_in() as client:
        client.send(b"a SELECT INBOX\r\n")
        eventually(lambda: scan_processes(site.server))
    listed = site.box / "dovecot-uidlist"
    eventually(lambda: listed.exists() and listed.read_bytes().count(b"\n") == FILES + 1)
    with site.log_in() as client:
        client.send(b"a SELECT INBOX\r\n")
        assert selected(client.until(rb"a OK")) == WHOLE


def test_stopping_does_not_wait_and_leaves_nobody_behind(site: Site) -> None:
    with site.held_up(), site.log_in() as client:
        client.send(b"a SELECT INBOX\r\n")
        eventually(lambda: scan_processes(site.server))
        began = time.monotonic()
        assert site.server.stop() == 0
        assert time.monotonic() - began < 15
        eventually(lambda: not scan_processes(site.server))
    site.server.start()
    with site.log_in() as client:
        client.send(b"a SELECT INBOX\r\n")
        assert selected(client.until(rb"a OK")) == WHOLE


def test_a_killed_server_leaves_nobody_behind(site: Site) -> None:
    with site.held_up(), site.log_in() as client:
        client.send(b"a SELECT INBOX\r\n")
        eventually(lambda: scan_processes(site.server))
        process = site.server.process
        assert process is not None
        process.kill()
        process.wait()
        eventually(lambda: not scan_processes(site.server))
    site.server.start()
    with site.log_in() as client:
        client.send(b"a SELECT INBOX\r\n")
        assert selected(client.until(rb"a OK")) == WHOLE
