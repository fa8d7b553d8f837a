"""What another client feels while a mailbox of 100,000 messages is opened for the first time: p99 of its NOOP."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence

from benchmarks.report import Row
from benchmarks.scenarios import Accounts
from benchmarks.servers import Side

MOST = 20.0
"""Milliseconds that p99 may reach."""


def _p99(side: Side, accounts: Accounts) -> float:
    side.forget(accounts.k100)
    other = accounts.imap(side, accounts.k1)
    opener = accounts.imap(side, accounts.k100, select=False)
    done = threading.Event()

    def open_it() -> None:
        opener.command(b"SELECT INBOX")
        done.set()

    thread = threading.Thread(target=open_it)
    thread.start()
    times = []
    while not done.is_set() or len(times) < 100:
        start = time.perf_counter()
        other.command(b"NOOP")
        times.append((time.perf_counter() - start) * 1000)
        time.sleep(0.002)
    thread.join()
    opener.close()
    other.close()
    return statistics.quantiles(times, n=100)[98]


def measure(sides: Sequence[Side], accounts: Accounts) -> Row:
    """In milliseconds; the target is absolute, given as the ratio that it means here. `sides` are as in `relay`."""
    ours, theirs, stock = (_p99(side, accounts) for side in sides)
    return Row("NOOP p99 while 100k are opened", ours, theirs, "ms", MOST / theirs, 1.0, stock)
