"""A real process changes a mailbox that another one, with inotify and pokes, has open: what that costs the other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from mailserver.notify.watcher import SETTLE_TIME
from tests.store.disk import USER, open_store
from tests.store.samples import ADD, put, uids

ROOT = Path(__file__).resolve().parent.parent.parent
CHANGES = 20


def test_the_changes_of_another_worker_are_heard_once_and_start_no_echo(tmp_path: Path) -> None:
    account = open_store(str(tmp_path)).account(USER)
    put(account)
    inbox = account.mailbox("INBOX")
    inbox.refresh()
    sending, receiving = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sending, receiving:
        hearing = subprocess.Popen(
            [sys.executable, "-m", "tests.notify.hearing", str(tmp_path), str(receiving.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=[receiving.fileno()],
        )
        assert hearing.stdin is not None
        assert hearing.stdout is not None
        assert hearing.stdout.readline() == "ready\n"
        # What it looks at because it has just begun is not counted: told apart by a second's quiet.
        time.sleep(SETTLE_TIME + 1)
        for number in range(CHANGES):
            uid = put(account)
            sending.send(inbox.id)
            inbox.store_flags([uid], ADD, ["\\Seen"])
            sending.send(inbox.id)
            while hearing.stdout.readline() != f"{number + 2}\n":
                pass  # those before it, and once more for the flags
        time.sleep(2 * SETTLE_TIME + 1)
        hearing.stdin.close()
        said = hearing.stdout.read()
        assert hearing.wait(60) == 0
        hearing.stdout.close()
    counts = json.loads(said.splitlines()[-1])
    assert counts["messages"] == CHANGES + 1 == len(uids(inbox))
    assert counts["told"] == 0, "who hears of a change tells nobody"
    # For each change a poke, and the names once; at the start and at the end it is compared whole.
    assert CHANGES <= counts["refreshes"] <= 4 * CHANGES + 4
    # The account is opened, what was fresh is settled: nothing for each change.
    assert counts["locks"] < CHANGES / 2
    assert counts["comparisons"] <= 4
    account.close()
