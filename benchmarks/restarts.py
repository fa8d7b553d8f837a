"""A reload and a restart while clients are there: who is refused, whose session ends, and how long nobody is served.

Some clients hold a session and ask NOOP; others connect with TLS, log in, ask and leave, again and again, and try again
at once when that fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from attrs import define, field

from benchmarks.client import Imap
from benchmarks.report import Section
from benchmarks.scenarios import Accounts
from benchmarks.servers import Ours, Side

HOLDING, VISITING = 20, 4
"""Clients of each kind."""
BEFORE, AFTER = 2.0, 3.0
"""Seconds of load before what is measured, and behind it."""
EVERY = 0.1
"""Seconds between two NOOPs of a client that holds its session."""


@define
class Tally:
    """What the clients of one side have seen."""

    attempts: int = 0
    failed: int = 0
    dropped: int = 0
    gap: float = 0.0
    """Longest time that one client was not served, in seconds."""
    took: float = 0.0
    """Seconds until the command that began it came back."""
    stop: threading.Event = field(factory=threading.Event)
    _lock: threading.Lock = field(factory=threading.Lock)

    def hold(self, client: Imap) -> None:
        """Ask until the end, or until the session is dropped."""
        while not self.stop.is_set():
            start = time.monotonic()
            try:
                client.command(b"NOOP")
            except (AssertionError, OSError):
                client.raw.close()
                with self._lock:
                    self.dropped += 1
                return
            self._note(time.monotonic() - start)
            time.sleep(EVERY)

    def visit(self, side: Side, accounts: Accounts, user: str) -> None:
        """Connect and leave, until the end."""
        served = time.monotonic()
        while not self.stop.is_set():
            good = True
            try:
                client = Imap(side.ports["imaps"], tls=side.ca)
                with client.raw:  # closed at once where it fails, too: a server may wait for that
                    client.login(user, accounts.passwords[user])
                    client.command(b"SELECT INBOX")
                    client.close()
            except (AssertionError, OSError):
                good = False
                time.sleep(0.005)
            with self._lock:
                self.attempts += 1
                self.failed += not good
            if good:
                now = time.monotonic()
                self._note(now - served)
                served = now

    def _note(self, gap: float) -> None:
        with self._lock:
            self.gap = max(self.gap, gap)


def _disturb(side: Side, accounts: Accounts, action: Callable[[], None]) -> Tally:
    tally = Tally()
    held = [accounts.imap(side, accounts.idle[number], tls=True) for number in range(HOLDING)]
    threads = [threading.Thread(target=tally.hold, args=(client,)) for client in held]
    threads += [
        threading.Thread(target=tally.visit, args=(side, accounts, accounts.idle[-number - 1]))
        for number in range(VISITING)
    ]
    for thread in threads:
        thread.start()
    try:
        time.sleep(BEFORE)
        start = time.monotonic()
        action()
        tally.took = time.monotonic() - start
        time.sleep(AFTER)
    finally:
        tally.stop.set()
        for thread in threads:
            thread.join()
        for client in held:
            client.raw.close()
    return tally


def _restart(side: Side) -> None:
    """At once: `Side.restart` waits for rest, which does not come."""
    side.process.stop()
    side.process.start()


def measure(ours: Ours, theirs: Side, accounts: Accounts, words: str) -> Section:
    """The table; `words` say how ours runs."""
    lines = []

    def note(name: str, side: Side, action: Callable[[], None]) -> None:
        tally = _disturb(side, accounts, action)
        lines.append([
            name, side.name, f"{tally.attempts:,}", f"{tally.failed:,}", str(HOLDING), str(tally.dropped),
            f"{tally.gap * 1000:,.0f}", f"{tally.took * 1000:,.0f}",
        ])  # fmt: skip

    for name in ("nothing", "reload", "restart"):
        for side in (ours, theirs):
            actions = {"nothing": lambda: None, "reload": side.reload, "restart": partial(_restart, side)}
            note(name, side, actions[name])
    with ours.sockets_kept():
        note("restart, systemd's sockets", ours, partial(_restart, ours))
    heads = [
        "what", "of", "attempts to connect", "failed", "sessions", "dropped", "longest gap, ms", "command took, ms",
    ]  # fmt: skip
    below = (
        f"{VISITING} clients connect, log in, SELECT and leave; a gap is the time between two such visits that went well,"
        " or that of a NOOP. A restart ends the server and starts it anew; of systemd's sockets"
        " only the one that these clients use is kept."
    )
    return Section(f"Reload and restart under load; {words}", heads, lines, [below])
