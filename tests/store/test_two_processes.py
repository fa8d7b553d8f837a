"""Two interpreters at work on one account; pokes between them get lost at random. In the end both see the same, the
truth, and every message that was acknowledged is in exactly one place. So it is when one of them is killed and started
again, time after time, while the other works on.
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
from typing import Any

import pytest

from tests.store.disk import USER, open_store, scratch
from tests.store.samples import content

OPERATIONS = int(os.environ.get("MAILSERVER_STEPS", "30")) * 4
SEED = int(os.environ.get("MAILSERVER_SEED", "1"))
HANG = 120.0
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Ledger:
    """What the processes said they would do, and did."""

    def __init__(self) -> None:
        self.appended: set[str] = set()
        self.expunged: set[str] = set()
        self.maybe_appended: list[list[str]] = []
        """Groups that a process was killed over."""
        self.maybe_expunged: set[str] = set()

    def check(self, there: Counter[str]) -> None:
        assert max(there.values(), default=1) == 1, "a message is there twice"
        maybe = {subject for group in self.maybe_appended for subject in group}
        must = self.appended - self.expunged - self.maybe_expunged
        assert must <= there.keys(), f"lost: {sorted(must - there.keys())}"
        may = (must | maybe | self.maybe_expunged) - self.expunged
        assert there.keys() <= may, f"came back, or from nowhere: {sorted(there.keys() - may)}"
        for group in self.maybe_appended:
            seen = [subject for subject in group if subject in there or subject in self.expunged | self.maybe_expunged]
            assert len(seen) in {0, len(group)}, f"half of {group}"


class Process:
    """One worker."""

    def __init__(self, root: str, name: str, seed: int, ledger: Ledger) -> None:
        self.name = name
        self.ledger = ledger
        self.doing: list[str] = []
        self.lines = 0
        self.done = False
        self.report: dict[str, Any] | None = None
        self.pokes = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.worker", root, name, str(seed), str(OPERATIONS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=TOP,
        )
        self._buffer = b""

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def read(self) -> bool:
        """Take up what it says; False when it is dead."""
        assert self.process.stdout
        data = os.read(self.process.stdout.fileno(), 65536)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._take(line.decode())
        return bool(data)

    def _take(self, line: str) -> None:
        self.lines += 1
        words = line.split()
        if words[0] == "poke":
            self.pokes += 1
        elif words[0] == "about":
            self.doing = words[1:]
        elif words[0] == "did":
            self.doing = []
            (self.ledger.appended if words[1] == "append" else self.ledger.expunged).update(words[2:])
        elif words[0] == "done":
            self.done = True
        elif words[0] == "report":
            self.report = json.loads(line.removeprefix("report "))

    def kill(self) -> None:
        """SIGKILL, and what it was doing is uncertain from now on."""
        self.process.kill()
        while self.read():
            pass
        self.process.wait()
        if self.doing[:1] == ["append"]:
            self.ledger.maybe_appended.append(self.doing[1:])
        elif self.doing:
            self.ledger.maybe_expunged.update(self.doing[1:])
        self.close()

    def fail_if_dead(self) -> None:
        assert self.process.stderr
        if self.process.poll() is not None:
            pytest.fail(f"{self.name} died:\n{self.process.stderr.read().decode()}")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            pipe.close()


def run_pair(root: str, seed: int, ledger: Ledger, *, kills: int = 0) -> list[dict[str, Any]]:
    """Both processes' reports; the second one is killed so many times before it may finish."""
    chance = random.Random(seed)
    pair = [Process(root, name, seed * 100 + n, ledger) for n, name in enumerate("ab")]
    patience = chance.randint(5, 60)
    end = time.monotonic() + HANG
    finishing = False
    try:
        while any(process.report is None for process in pair):
            assert time.monotonic() < end, "they hang"
            with selectors.DefaultSelector() as selector:
                for process in pair:
                    selector.register(process.process.stdout, selectors.EVENT_READ, process)
                ready = [key.data for key, _events in selector.select(1.0)]
            for process in ready:
                if not process.read():
                    process.process.wait(10)
                    process.fail_if_dead()
            for process, other in (pair, reversed(pair)):
                for _ in range(process.pokes):
                    if not other.done and chance.random() < 0.5:
                        other.tell("poke")
                process.pokes = 0
            if kills and pair[1].lines >= patience:
                kills -= 1
                patience = chance.randint(5, 60)
                pair[1].kill()
                pair[1] = Process(root, f"b{kills}-", seed * 100 + 2 + kills, ledger)
            elif not finishing and all(process.done for process in pair):
                finishing = True
                for process in pair:
                    process.tell("finish")
        for process in pair:
            process.tell("end")
            assert process.process.wait(30) == 0
        return [process.report for process in pair if process.report is not None]
    finally:
        for process in pair:
            process.close()


@pytest.mark.parametrize(("seed", "kills"), [(SEED, 0), (SEED + 1, 0), (SEED + 2, 4)])
def test_two_interpreters_converge(seed, kills):
    ledger = Ledger()
    with scratch() as root:
        account = open_store(root).account(USER)
        account.create("moved")
        account.create("copies")
        account.close()
        first, second = run_pair(root, seed, ledger, kills=kills)
        assert first == second
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
    assert len(ledger.appended) > OPERATIONS / 4
    ledger.check(there)
