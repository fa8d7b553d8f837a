"""The latency of NOOP (p99) for one client while another opens a mailbox of 100,000 messages for the first time."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence

from benchmarks.accounts import Accounts
from benchmarks.report import Row
from benchmarks.servers import TestedServer

MOST = 20.0
"""Milliseconds that p99 may reach."""


def _p99(side: TestedServer, accounts: Accounts) -> float:
    side.forget(accounts.k100)
    other = accounts.imap(side, accounts.k1)
    opener = accounts.imap(side, accounts.k100, select=False)
    done = threading.Event()

    def open_it() -> None:
        opener.command(b"SELECT INBOX")
        done.set()

    thread = threading.Thread(target=open_it)
    thread.start()
    times: list[float] = []
    while not done.is_set() or len(times) < 100:
        start = time.perf_counter()
        other.command(b"NOOP")
        times.append((time.perf_counter() - start) * 1000)
        time.sleep(0.002)
    thread.join()
    opener.close()
    other.close()
    return statistics.quantiles(times, n=100)[98]


def measure(sides: Sequence[TestedServer], accounts: Accounts) -> Row:
    """Return a row in milliseconds; its target is absolute, expressed as a ratio. `sides` are those of `relay`."""
    ours, theirs, *stock = (_p99(side, accounts) for side in sides)
    return Row("NOOP p99 while 100k are opened", ours, theirs, "ms", MOST / theirs, 1.0, *stock)
