"""What holds over all workers of a server: changes are heard, limits and locks hold, the administrator sees everybody."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.client import Client, eventually, logged_in
from tests.live.conftest import no_bug
from tests.server import Server

SESSIONS = 6
ENOUGH = 40
"""Connections after which every worker has got one, but for a chance of one in a billion."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    append = f'\n[pop3]\nlock = "session"\n\n[limits]\nsessions_per_user = {SESSIONS}\n'
    with Server(tmp_path_factory.mktemp("shared"), workers=2, append=append) as server:
        yield server
        no_bug(server.log)


def who(server: Server, *options: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        server.run_cli("who", "--json", "--config", str(server.config), *options).stdout
    )
    return rows


def connected(server: Server, protocol: str, stack: contextlib.ExitStack) -> tuple[Client, Client]:
    """Connections to two workers, before login."""
    found: dict[int, Client] = {}
    for _ in range(ENOUGH):
        client = Client(server, protocol)
        client.greeting()
        port = client.socket.getsockname()[1]
        [worker] = [row["worker"] for row in who(server) if row["port"] == port]
        if worker in found:
            client.socket.close()
        else:
            found[worker] = stack.enter_context(client)
        if len(found) == 2:
            first, second = found.values()
            return first, second
    raise AssertionError("all connections went to one worker")


def test_a_change_in_one_worker_reaches_an_idle_session_in_another(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        idle, other = connected(server, "imaps", stack)
        for client in (idle, other):
            client.log_in(*server.user_of("example.test"))
            client.send(b"a SELECT INBOX\r\n")
            client.until(rb"a OK")
        assert idle.ask(b"i IDLE\r\n").startswith(b"+ ")
        # Past the time in which a watcher looks at what came before it was set.
        time.sleep(3)
        other.send(b"b APPEND INBOX {12+}\r\nA: b\r\n\r\ntext\r\n")
        other.until(rb"b OK")
        began = time.monotonic()
        assert idle.until(rb"\* \d+ EXISTS")
        assert time.monotonic() - began < 10, "that is no look every 30 seconds"
        other.send(b"c STORE * +FLAGS (\\Flagged)\r\n")
        other.until(rb"c OK")
        idle.until(rb"\* \d+ FETCH \(.*\\Flagged.*")
        other.send(b"d STORE * +FLAGS (\\Deleted)\r\ne EXPUNGE\r\n")
        other.until(rb"e OK")
        idle.until(rb"\* \d+ EXPUNGE")


def test_a_maildrop_is_locked_over_all_workers(server: Server) -> None:
    user, password = server.user_of("example.test")
    with contextlib.ExitStack() as stack:
        first, second = connected(server, "pop3s", stack)
        first.log_in(user, password)
        assert second.try_login(user, password).startswith(b"-ERR [IN-USE]")
        assert first.ask(b"QUIT\r\n").startswith(b"+OK")
        second.log_in(user, password)


def test_sessions_are_counted_over_all_workers(server: Server) -> None:
    user, password = server.user_of("example.test")
    eventually(lambda: not who(server))
    with contextlib.ExitStack() as stack:
        for _ in range(SESSIONS):
            stack.enter_context(logged_in(server, "imaps"))

        def refused() -> bool:
            with Client(server, "imaps") as client:
                client.greeting()
                return client.try_login(user, password).startswith(b"a NO [LIMIT]")

        # The workers tell each other a moment later.
        eventually(lambda: all(refused() for _ in range(10)))
    eventually(lambda: not who(server))
    with logged_in(server, "imaps"):
        pass


def test_kick_and_status_reach_all_workers(server: Server) -> None:
    user, _ = server.user_of("example.test")
    eventually(lambda: not who(server))
    with contextlib.ExitStack() as stack:
        clients = connected(server, "imaps", stack)
        for client in clients:
            client.log_in(*server.user_of("example.test"))
        rows = who(server, "--user", user)
        assert {row["worker"] for row in rows} == {0, 1}
        told = json.loads(server.run_cli("status", "--json", "--config", str(server.config)).stdout)
        assert [worker["sessions"]["logged_in"] for worker in told["workers"]] == [1, 1]
        assert len({worker["pid"] for worker in told["workers"]}) == 2
        assert len([each for each in told["listeners"] if each["protocol"] == "imaps"]) == 2  # IPv4 and IPv6
        done = server.run_cli("kick", user, "--config", str(server.config))
        assert sorted(line.split()[0] for line in done.stdout.splitlines()) == sorted(row["session"] for row in rows)
        for client in clients:
            assert client.rest().startswith(b"* BYE ")


def test_a_worker_that_does_not_answer_is_told_as_such_and_not_waited_for(server: Server) -> None:
    told = json.loads(server.run_cli("status", "--json", "--config", str(server.config)).stdout)
    stopped = told["workers"][1]
    os.kill(stopped["pid"], signal.SIGSTOP)
    try:
        done = server.run_cli("status", "--json", "--config", str(server.config), check=False)
        assert done.returncode == 1
        assert f"(pid {stopped['pid']}) does not answer" in done.stderr
        assert [worker["answers"] for worker in json.loads(done.stdout)["workers"]] == [True, False]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped["pid"], signal.SIGCONT)
