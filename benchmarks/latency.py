"""What another client feels while a mailbox of 100,000 messages is opened for the first time: p99 of its NOOP."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator

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


def measure(ours: Side, theirs: Side, accounts: Accounts) -> Iterator[tuple[str, float, float, str, float, float]]:
    """One row, in milliseconds; the target is absolute, told as the ratio that it means here."""
    mine, other = (_p99(side, accounts) for side in (ours, theirs))
    yield ("NOOP p99 while 100k are opened", mine, other, "ms", MOST / other, 1.0)
