"""Deliveries by a foreign program: it writes a file into tmp/, renames it into new/, and a session reports the message.

The session sends NOOP every PAUSE until it has heard of the message, or is in IDLE.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence

from benchmarks.accounts import Accounts
from benchmarks.report import Row
from benchmarks.servers import TestedServer

PAUSE = 0.002
"""Seconds between two NOOPs."""
BETWEEN = 0.05
"""Seconds between two deliveries."""
PATIENCE = 30.0
MOST = 10.0
"""Milliseconds until a message is reported."""
DELIVERIES = 15


class Foreign:
    """A session, and deliveries to its mailbox by a foreign program."""

    def __init__(self, side: TestedServer, accounts: Accounts, *, idle: bool) -> None:
        self._side = side
        self._mail = accounts.mail
        self._maildir = side.maildir(accounts.foreign)
        self._client = accounts.imap(side, accounts.foreign)
        self._count = self._before = accounts.size(accounts.foreign)
        self._idle = idle
        self._owner = self._maildir.stat()
        if idle:
            self._client.send(b"i IDLE\r\n")
            while not self._client.line().startswith(b"+"):
                pass

    def deliver(self) -> float:
        """Deliver one message; return the seconds from its rename until the session has reported it."""
        time.sleep(BETWEEN)
        self._count += 1
        data = self._mail.message(self._count)
        name = f"{time.time():.6f}.P{os.getpid()}Q{self._count}.foreign"
        path = self._maildir / "tmp" / name
        path.write_bytes(data)
        os.chown(path, self._owner.st_uid, self._owner.st_gid)
        start = time.perf_counter()
        path.rename(self._maildir / "new" / name)
        if self._idle:
            self._wait()
        else:
            self._ask()
        return time.perf_counter() - start

    def _wait(self) -> None:
        expected = b"* %d EXISTS\r\n" % self._count
        while self._client.line() != expected:
            pass

    def _ask(self) -> None:
        expected = b"* %d EXISTS\r\n" % self._count
        end = time.monotonic() + PATIENCE
        while expected not in self._client.command(b"NOOP"):
            assert time.monotonic() < end, "the delivery is not reported"
            time.sleep(PAUSE)

    def close(self) -> None:
        """Remove the messages and end the session."""
        if self._idle:
            self._client.send(b"DONE\r\n")
            self._client.answer(b"i ")
        self._client.command(b"STORE %d:* +FLAGS.SILENT (\\Deleted)" % (self._before + 1))
        self._client.command(b"EXPUNGE")
        self._client.close()


def measure(sides: Sequence[TestedServer], accounts: Accounts, *, idle: bool) -> Row:
    """Return a row of median delays in milliseconds; its target is absolute, expressed as a ratio."""
    delays = []
    for side in sides:
        foreign = Foreign(side, accounts, idle=idle)
        delays.append(statistics.median(foreign.deliver() for _ in range(DELIVERIES)) * 1000)
        foreign.close()
    ours, theirs, *stock = delays
    name = "foreign delivery, until IDLE reports it" if idle else "foreign delivery, until NOOP reports it"
    return Row(name, ours, theirs, "ms", MOST / theirs, 1.0, *stock)
