"""What happens when a process of the server dies or stands still while clients are there."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.live.client import Client, eventually, logged_in
from tests.server import Server
from tests.workers.processes import (
    Load,
    alive,
    descriptors,
    family,
    held,
    held_in_each,
    kill,
    master,
    workers,
    works,
    zombies,
    zygote,
    zygotes,
)

RESTARTS = int(os.environ.get("MAILSERVER_RESTARTS", "5"))
"""Of both workers."""


def test_a_killed_worker_is_replaced_at_once_and_sessions_of_others_go_on(server: Server) -> None:
    sessions = held_in_each(server, 2)
    victim, other = sessions
    with Load(server) as load:
        load.more()
        kill(victim)
        load.more()
        eventually(lambda: len(workers(server)) == 2 and victim not in workers(server))
        faults = len(load.faults)
        load.more(60)
        assert len(load.faults) == faults, load.faults
    # Only who had been taken by the dead one heard of it: nobody was refused, and at most one a thread was cut.
    assert faults <= 4, load.faults
    assert not any("Refused" in fault for fault in load.faults)
    assert works(sessions[other])
    assert sessions[victim].rest() == b""
    eventually(lambda: not zombies(master(server)))
    assert not zombies(zygote(server))


def test_a_signal_without_a_name_ends_one_worker_and_nobody_else(server: Server) -> None:
    sessions = held_in_each(server, 2)
    before, (victim, other) = zygote(server), sessions
    number = signal.SIGRTMIN + 1
    kill(victim, number)
    server.wait_for(rf"process {victim} ended with signal {number} ")
    eventually(lambda: len(workers(server)) == 2 and victim not in workers(server))
    assert zygote(server) == before
    assert works(sessions[other])


def test_a_killed_zygote_is_replaced_and_no_session_ends(server: Server) -> None:
    sessions = held_in_each(server, 2)
    before = zygote(server)
    with Load(server) as load:
        load.more()
        kill(before)
        eventually(lambda: zygotes(server) not in ([], [before]))
        eventually(lambda: len(workers(server)) == 2, 40)
        load.more(60)
    assert not load.faults
    for client in sessions.values():
        assert works(client)
        client.socket.close()
    # Those of the dead zygote have retired: with their last session they end.
    eventually(lambda: not any(alive(pid) for pid in sessions))
    _client, pid = held(server)
    assert pid not in sessions
    eventually(lambda: not zombies(master(server)))


def test_when_the_master_is_killed_the_others_finish_and_end(server: Server) -> None:
    sessions = held_in_each(server, 2)
    processes = family(server)
    kill(master(server))
    for client in sessions.values():
        assert client.line().startswith(b"* BYE")
    eventually(lambda: not any(map(alive, processes)))
    with pytest.raises(ConnectionRefusedError):
        Client(server, "imaps", tls=False)
    assert server.stop() == -signal.SIGKILL
    # Nothing is in the way of the next start.
    server.start()
    held(server)


@pytest.mark.slow
def test_a_worker_that_stands_still_is_replaced(server: Server) -> None:
    sessions = held_in_each(server, 2)
    victim, other = sessions
    kill(victim, signal.SIGSTOP)
    server.wait_for(rf"worker \d \(process {victim}\) gives no sign of life: killed", seconds=30)
    eventually(lambda: victim not in workers(server) and len(workers(server)) == 2)
    with Load(server) as load:
        load.more(40)
    assert not load.faults
    assert works(sessions[other])


@pytest.mark.slow
def test_a_zygote_that_stands_still_is_replaced(server: Server) -> None:
    sessions = held_in_each(server, 2)
    before = zygote(server)
    kill(before, signal.SIGSTOP)
    server.wait_for(rf"process {before}\) gives no sign of life: killed", seconds=30)
    eventually(lambda: zygotes(server) not in ([], [before]), 40)
    eventually(lambda: len(workers(server)) == 2, 40)
    assert all(works(client) for client in sessions.values())


@pytest.mark.slow
def test_descriptors_do_not_leak_over_many_restarts(server: Server) -> None:
    def restart() -> None:
        victims = workers(server)
        for victim in victims:
            kill(victim)
        eventually(lambda: not any(map(alive, victims)) and len(workers(server)) == 2)
        time.sleep(1.2)  # one that dies sooner waits, as its successor may do the same

    restart()
    processes = (master(server), zygote(server))
    before = [descriptors(pid) for pid in processes]
    for _ in range(RESTARTS):
        restart()
    # A worker on its way has a line and a pidfd of its own for a moment.
    eventually(lambda: [descriptors(pid) for pid in processes] == before)


@contextlib.contextmanager
def lmtp(server: Server) -> Iterator[Callable[[bytes], None]]:
    """A session that delivers messages to a user of example.test, each until it is acknowledged."""
    with Client(server, "lmtp") as client:
        client.greeting()
        client.hello()

        def deliver(text: bytes) -> None:
            client.send(b"MAIL FROM:<a@example.net>\r\nRCPT TO:<ben@example.test>\r\nDATA\r\n")
            assert [client.line()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
            client.send(text + b".\r\n")
            assert client.line().startswith(b"250")

        yield deliver


@contextlib.contextmanager
def append(server: Server) -> Iterator[Callable[[bytes], None]]:
    """As `lmtp`, by APPEND."""
    with logged_in(server, "imaps") as client:

        def put(text: bytes) -> None:
            client.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(text), text))
            assert client.until(rb"a ")[-1].startswith(b"a OK")

        yield put


@pytest.mark.parametrize(("way", "sessions"), [(lmtp, 3), (append, 2)])
def test_nothing_acknowledged_is_lost(
    server: Server, way: Callable[[Server], AbstractContextManager[Callable[[bytes], None]]], sessions: int
) -> None:
    """Messages come in while workers are killed in the middle of whatever they do."""
    acknowledged: list[int] = []
    stop = threading.Event()

    def bring(first: int) -> None:
        number = first
        while not stop.is_set():
            with contextlib.suppress(OSError, AssertionError), way(server) as put:
                while not stop.is_set():
                    number += 1
                    put(b"Subject: kept\r\nX-%b: %d\r\n\r\nkept\r\n" % (way.__name__.encode(), number))
                    acknowledged.append(number)

    threads = [threading.Thread(target=bring, args=(each * 1_000_000,)) for each in range(sessions)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            seen = len(acknowledged)
            eventually(lambda seen=seen: len(acknowledged) > seen + 10, 60)
            kill(workers(server)[0])
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert server.stop() == 0
    field = re.compile(rb"^X-%b: (\d+)" % way.__name__.encode(), re.MULTILINE)
    found = [
        int(number[1])
        for name in ("anna", "ben")
        for folder in ("new", "cur")
        for path in (server.maildir(f"{name}@example.test") / folder).iterdir()
        if (number := field.search(path.read_bytes()))
    ]
    assert set(acknowledged) <= set(found)
    assert len(found) == len(set(found)), "a message is there twice"
    server.start()


def test_the_end_has_no_process_left(server: Server) -> None:
    client, _pid = held(server)
    client.send(b"i IDLE\r\n")
    client.until(rb"\+")
    processes = family(server)
    assert server.stop() == 0
    assert client.line().startswith(b"* BYE")
    assert not any(map(alive, processes))
