"""Two interpreters at work on one account; pokes between them get lost at random. In the end both see the same, the
truth, and every message that was acknowledged is in exactly one place.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.store.disk import USER, open_store, scratch
from tests.store.samples import content

OPERATIONS = int(os.environ.get("MAILSERVER_STEPS", "30")) * 4
HANG = 120.0


class Process:
    def __init__(self, root: str, name: str, seed: int) -> None:
        self.name = name
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.worker", root, name, str(seed), str(OPERATIONS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
        )
        self.buffer = b""

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def read(self) -> list[str]:
        assert self.process.stdout
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            assert self.process.stderr
            pytest.fail(f"{self.name} died:\n{self.process.stderr.read().decode()}")
        self.buffer += data
        *lines, self.buffer = self.buffer.split(b"\n")
        return [line.decode() for line in lines]


def run_pair(root: str, seed: int) -> list[dict[str, object]]:
    """Both processes' reports."""
    lost = random.Random(seed)
    pair = [Process(root, name, seed * 2 + n) for n, name in enumerate("ab")]
    try:
        with selectors.DefaultSelector() as selector:
            for number, process in enumerate(pair):
                selector.register(process.process.stdout, selectors.EVENT_READ, number)
            done: set[int] = set()
            reports: dict[int, dict[str, object]] = {}
            end = time.monotonic() + HANG
            while len(reports) < 2:
                assert time.monotonic() < end, "they hang"
                for key, _events in selector.select(1.0):
                    for line in pair[key.data].read():
                        if line == "poke" and 1 - key.data not in done and lost.random() < 0.5:
                            pair[1 - key.data].tell("poke")
                        elif line == "done":
                            done.add(key.data)
                            if len(done) == 2:
                                for process in pair:
                                    process.tell("finish")
                        elif line.startswith("report "):
                            reports[key.data] = json.loads(line.removeprefix("report "))
        for process in pair:
            process.tell("end")
            assert process.process.wait(30) == 0
        return [reports[0], reports[1]]
    finally:
        for process in pair:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()
            for pipe in (process.process.stdin, process.process.stdout, process.process.stderr):
                pipe.close()


SEED = int(os.environ.get("MAILSERVER_SEED", "1"))


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_two_interpreters_converge(seed):
    with scratch() as root:
        account = open_store(root).account(USER)
        account.create("moved")
        account.create("copies")
        account.close()
        first, second = run_pair(root, seed)
        assert first["messages"] == second["messages"]
        assert first["keywords"] == second["keywords"]
        account = open_store(root).account(USER)
        inbox = account.mailbox("INBOX")
        inbox.refresh()
        snapshot = inbox.load()
        assert [[row.uid, row.flags] for row in snapshot.rows] == first["messages"]
        there = Counter(
            content(mailbox, row.uid).partition(b"Subject: ")[2].partition(b"\r")[0].decode()
            for mailbox in (inbox, account.mailbox("moved"))
            for row in mailbox.load().rows
        )
        account.close()
        appended = Counter([*first["appended"], *second["appended"]])
        expunged = Counter([*first["expunged"], *second["expunged"]])
        assert len(appended) > OPERATIONS / 4
        assert there == appended - expunged
        assert max(there.values(), default=1) == 1
