"""One server for all attacks. Around each of them another client goes on, and memory and log are watched."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.wire import Client, log_in
from tests.server import Server
from tests.sweeps import choose

PATIENCE = 5.0
"""Seconds that a NOOP of another client may take at any time, less those for which a processor was waited for."""
HANG = 60.0
"""Seconds that it may take on any machine."""
MEMORY = 96 * 1024
"""KiB by which an attack may let the server's memory grow: one largest message and its reading."""
LARGEST = 16 * 1024 * 1024
"""`max_message_size` here, octets."""
WATCHER = "ben@example.test"
PACE = choose(0.05, whole=0.02)
"""Seconds between the NOOPs of that client."""


GROUP = "everybody@example.test"
MEMBERS = [f"u{number % 32:03}+{number}@example.test" for number in range(1000)]
"""As many as one address may have."""
SOCKETS = """
[[listener]]
protocol = "auth"
socket = "{dir}/auth.socket"
[[listener]]
protocol = "lookup"
socket = "{dir}/lookup.socket"
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("hostile")
    settings = f"[limits]\nunauthenticated_per_address = 200\n\n[mail]\nmax_message_size = {LARGEST}\n"
    (directory / "virtual").write_text(f"{GROUP} " + " ".join(MEMBERS) + "\n")
    edit = {"[mail]\n": settings, '/users"]': f'/users", "virtual:{directory}/virtual"]'}
    server = Server(directory / "server", users=32, edit=edit, append=SOCKETS)
    with server:
        yield server


class Watcher(threading.Thread):
    """Another client, which must not notice anything."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.client = log_in(server, "imaps", WATCHER)
        assert self.client.command(b"SELECT INBOX")[-1].startswith(b"OK")
        self.processes = (os.getpid(), process_of(server))
        self.worst = self.longest = 0.0
        self.failure: BaseException | None = None
        self._end = threading.Event()

    def run(self) -> None:
        try:
            while not self._end.wait(PACE):
                queued, before = sum(map(queue_time, self.processes)), time.monotonic()
                self.client.in_step()
                took = time.monotonic() - before
                self.longest = max(self.longest, took)
                self.worst = max(self.worst, took - (sum(map(queue_time, self.processes)) - queued))
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        self._end.set()
        self.join(60)
        self.client.close()


def process_of(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


def queue_time(pid: int) -> float:
    """Seconds for which the threads of a process could run and others had the processors; 0 where nobody counts it."""
    waited = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # that thread has ended
            waited += int(path.read_text().split()[1])
    return waited / 1e9


def peak(server: Server) -> int:
    """The server's largest memory since the last `forget_peak`, KiB."""
    found = re.search(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{process_of(server)}/status").read_text())
    assert found is not None
    return int(found[1])


def forget_peak(server: Server) -> None:
    Path(f"/proc/{process_of(server)}/clear_refs").write_text("5")


def no_bugs(log: str) -> None:
    for word in ("bug session=", "Traceback", "Unhandled", "SERVERBUG"):
        assert word not in log, log[max(0, log.index(word) - 500) :][:6000]


@pytest.fixture(autouse=True)
def unharmed(server: Server, request: pytest.FixtureRequest) -> Iterator[None]:
    """After every attack: nobody waited, memory was bounded, no bug was logged, the server lives."""
    forget_peak(server)
    before, told = peak(server), server.log_path.stat().st_size
    watcher = Watcher(server)
    watcher.start()
    yield
    watcher.stop()
    grown = peak(server) - before
    with server.log_path.open("rb") as log:
        log.seek(told)
        no_bugs(log.read().decode(errors="replace"))
    unharmed_server(server, watcher)
    assert grown < MEMORY, f"the server took {grown} KiB"
    print(f"{request.node.name}: worst NOOP {watcher.worst:.3f} s, memory +{grown} KiB")


def unharmed_server(server: Server, watcher: Watcher) -> None:
    """It lives, and that client was served all the while."""
    assert server.process is not None
    assert server.process.poll() is None, server.log[-6000:]
    assert watcher.failure is None, repr(watcher.failure)
    assert watcher.worst < PATIENCE, f"another client waited {watcher.worst:.1f} s"
    assert watcher.longest < HANG, f"another client waited {watcher.longest:.1f} s"


@pytest.fixture(scope="session")
def fresh_users() -> list[str]:
    """Users that no test has used yet."""
    return [f"u{number:03}@example.test" for number in range(11, 27)]


@pytest.fixture
def mail_user(fresh_users: list[str]) -> str:
    """A user for this test alone."""
    return fresh_users.pop()


@pytest.fixture
def imap(server: Server) -> Iterator[Client]:
    """An IMAP client with three messages in its INBOX, which is selected."""
    with log_in(server, "imaps", "u000@example.test") as client:
        client.command(b"SELECT INBOX")
        if (
            client.command(b"SEARCH ALL TEXT text")[0] != b"* SEARCH 1 2 3"
            or client.command(b"SEARCH 4:*")[0] != b"* SEARCH"
        ):
            # Empty yet, or another test has put something in or changed it.
            client.command(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
            client.command(b"EXPUNGE")
            for number in range(3):
                text = b"From: a@example.test\r\nSubject: %d\r\n\r\ntext %d\r\n" % (number, number)
                assert client.command(b"APPEND INBOX {}", text)[-1].startswith(b"OK")
        assert client.command(b"SELECT INBOX")[-1].startswith(b"OK")
        yield client
        client.in_step()
