"""The records of one process: refusals in one ring, logins that were let in, in another one.

Neither may cost a login: a file that cannot be written is complained about once, and tried again after RETRY_AFTER.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mailserver.explain.record import Record
from mailserver.explain.ring import LONGEST, Ring, RingUnusable

DIRECTORY: Final = "explain"
"""Name of the directory in runtime_dir. It belongs to the user that serves."""
REFUSED, LOGGED_IN = ".refused", ".logins"
"""Ends of the files' names."""
RETRY_AFTER: Final = 60.0
"""Seconds after which a file that could not be written is tried again."""
REPEATED_AFTER: Final = 600.0
"""Seconds in which the same user, password or delegate, address, protocol and mechanism is recorded once: programs log in
every minute."""
MAX_RECENT: Final = 10_000


class LoginLog:
    """Writes the records of one process. Files are opened at the first record: only then has the process its user."""

    def __init__(
        self,
        directory: Path,
        name: str,
        complain: Callable[[str], None],
        *,
        keep_days: int = 7,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`directory`: that of the rings; made if it is missing. `name`: of this process, unique among those that run."""
        self.keep_days = keep_days
        self._directory = directory
        self._name = name
        self._complain = complain
        self._clock = clock
        self._rings: dict[str, Ring] = {}
        self._retry_at = 0.0
        self._has_complained = False
        self._recent: dict[tuple[str, ...], float] = {}

    def refused(self, record: Record) -> None:
        """Keep a refusal. Raises nothing."""
        self._write(REFUSED, record)

    def logged_in(self, record: Record) -> None:
        """Keep a login, unless the same was kept recently. Raises nothing."""
        now = self._clock()
        key = (record.user, record.delegate, record.credential, record.peer, record.protocol, record.method)
        before = self._recent.get(key)
        if before is not None and now - before < REPEATED_AFTER:
            return
        if len(self._recent) >= MAX_RECENT:
            self._recent.clear()
        self._recent[key] = now
        self._write(LOGGED_IN, record)

    def close(self) -> None:
        """Close the files."""
        rings, self._rings = self._rings, {}
        for ring in rings.values():
            ring.close()

    def _write(self, kind: str, record: Record) -> None:
        if self._retry_at and self._clock() < self._retry_at:
            return
        try:
            ring = self._rings.get(kind)
            if ring is None:
                ring = self._rings[kind] = self._open(kind)
            ring.write(record.to_octets(LONGEST))
            self._retry_at = 0.0
            self._has_complained = False
        except (OSError, RingUnusable) as error:
            self._retry_at = self._clock() + RETRY_AFTER
            self.close()
            if not self._has_complained:
                self._has_complained = True
                self._complain(str(error))

    def _open(self, kind: str) -> Ring:
        """Raises: OSError, RingUnusable."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._directory, 0o700)
        status = os.lstat(self._directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise RingUnusable(f"{self._directory} is not a directory that this process's user alone can write")
        path = self._directory / f"{self._name}{kind}"
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.lstat(path).st_mtime > self.keep_days * 86400:
                os.unlink(path)
        return Ring(path)
