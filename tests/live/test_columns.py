"""What a hundred sessions on one mailbox share."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from benchmarks.mail import PLAIN, fill, write
from tests.live.client import Client, memory
from tests.server import Server

MESSAGES = 30_000
COLUMNS = 28 * MESSAGES
"""Octets that the columns of such a mailbox take."""
SESSIONS = 100


@pytest.mark.slow
def test_a_hundred_sessions_do_not_multiply_the_columns_of_a_mailbox(tmp_path: Path) -> None:
    limits = f"\n[limits]\nsessions_per_user = {2 * SESSIONS}\nunauthenticated_per_address = {2 * SESSIONS}\n"
    server = Server(tmp_path, append=limits, workers=0)
    user, password = server.user_of("example.org")
    inbox = server.maildir(user)
    for folder in ("new", "cur"):
        for path in (inbox / folder).iterdir():
            path.unlink()
    originals = write(PLAIN, tmp_path / "originals", (os.getuid(), os.getgid()))
    fill(inbox, originals, MESSAGES)

    def opened() -> Client:
        client = stack.enter_context(Client(server, "imaps"))
        client.greeting()
        client.log_in(user, password)
        client.send(b"s SELECT INBOX\r\n")
        client.until(rb"s OK")
        return client

    def used() -> tuple[int, int]:
        (worker,) = json.loads(server.run_cli("status", "--json", "--config", str(server.config)).stdout)["workers"]
        return worker["mailboxes_in_use"], worker["messages_in_use"]

    with server, contextlib.ExitStack() as stack:
        assert server.process is not None
        first = [opened() for _ in range(5)]
        before = memory(server.process.pid)
        sessions = [opened() for _ in range(SESSIONS)]
        each = (memory(server.process.pid) - before) / SESSIONS
        assert used() == (1, MESSAGES)
        assert each < COLUMNS / 4, each
        # A flag that one changes is told to all, of the same columns.
        first[0].send(b"f STORE 7 +FLAGS (\\Flagged)\r\n")
        first[0].until(rb"f OK")
        for client in sessions:
            client.send(b"n NOOP\r\n")
            assert any(b"* 7 FETCH" in line for line in client.until(rb"n OK"))
        assert used() == (1, MESSAGES)
