"""A reload and a restart under load: connections refused, sessions dropped, and the longest time without service.

Some clients keep a session and send NOOP. Others connect with TLS, log in, SELECT and log out, again and again, and retry
at once after a failure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from attrs import define, field

from benchmarks.accounts import Accounts
from benchmarks.client import Imap
from benchmarks.report import Row, Section
from benchmarks.servers import Mailserver, TestedServer

HOLDING, VISITING = 20, 4
"""Clients of each kind."""
BEFORE, AFTER = 2.0, 3.0
"""Seconds of load before and after the action that is measured."""
EVERY = 0.1
"""Seconds between two NOOPs of a client that keeps its session."""


@define
class Observations:
    """What the clients of one server observed."""

    attempts: int = 0
    failed: int = 0
    dropped: int = 0
    gap: float = 0.0
    """The longest time in seconds that one client was not served."""
    took: float = 0.0
    """Seconds until the command that reloads or restarts returned."""
    stop: threading.Event = field(factory=threading.Event)
    _lock: threading.Lock = field(factory=threading.Lock)

    def hold(self, client: Imap) -> None:
        """Send NOOP until the end, or until the session is dropped."""
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

    def visit(self, side: TestedServer, accounts: Accounts, user: str) -> None:
        """Connect and log out, until the end."""
        served = time.monotonic()
        while not self.stop.is_set():
            good = True
            try:
                client = Imap(side.ports["imaps"], tls=side.ca)
                with client.raw:  # closed at once after a failure, too: a server may wait for that
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


def _disturb(side: TestedServer, accounts: Accounts, action: Callable[[], None]) -> Observations:
    observations = Observations()
    held = [accounts.imap(side, accounts.people[number], tls=True) for number in range(HOLDING)]
    threads = [threading.Thread(target=observations.hold, args=(client,)) for client in held]
    threads += [
        threading.Thread(target=observations.visit, args=(side, accounts, accounts.people[-number - 1]))
        for number in range(VISITING)
    ]
    for thread in threads:
        thread.start()
    try:
        time.sleep(BEFORE)
        start = time.monotonic()
        action()
        observations.took = time.monotonic() - start
        time.sleep(AFTER)
    finally:
        observations.stop.set()
        for thread in threads:
            thread.join()
        for client in held:
            client.raw.close()
    return observations


def _restart(side: TestedServer) -> None:
    """Restart without waiting for an idle server, as `TestedServer.restart` does: under load it is never idle."""
    side.process.stop()
    side.process.start()


def measure(ours: Mailserver, theirs: TestedServer, accounts: Accounts, words: str) -> tuple[list[Row], Section]:
    """Return no row, and the table; `words` say how ours runs."""
    lines = []

    def note(name: str, side: TestedServer, action: Callable[[], None]) -> None:
        observations = _disturb(side, accounts, action)
        lines.append([
            name, side.name, f"{observations.attempts:,}", f"{observations.failed:,}", str(HOLDING), str(observations.dropped),
            f"{observations.gap * 1000:,.0f}", f"{observations.took * 1000:,.0f}",
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
    return [], Section(f"Reload and restart under load; {words}", heads, lines, [below])
