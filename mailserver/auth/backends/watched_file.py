"""A file that is read again when it changes, in a thread, while its last good content is used.

The problems. A file has 100,000 lines, and no login and no other session may wait until all of them are parsed.
Administrators edit it while the server runs, by replacing it or in place, and file timestamps have a granularity of 4 ms.

The rules. At most once a second a stat, compared by device, inode, size and mtime, decides whether to read again; a file
that changed within two seconds before it was read is read once more. Reading again happens in a thread, and the previous
content remains valid until it is done. Where part of a file does harm, a change is read once several stats have found the
same. Only the first read and an explicit `reload` block; after `read_ahead`, in a thread or
before clients can connect, they do not either. If the file cannot be read, the last good content stays.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Generic, TypeVar

from attrs import frozen

from mailserver.auth.backends.users_file import MAX_FILE, read_text
from mailserver.errors import AuthUnavailable

T = TypeVar("T")

_STAT_EVERY: Final = 1.0
_SETTLED: Final = 2.0

_log = logging.getLogger(__name__)


@frozen
class _Stamp:
    """The identity of one state of the file."""

    device: int
    inode: int
    size: int
    mtime: int


@frozen
class Content(Generic[T]):
    """The content of the file at one time."""

    stamp: _Stamp
    racy: bool
    """The file had just changed: other content may have the same stamp later."""
    value: T


def read_content(path: Path, parse: Callable[[str], T], largest: int = MAX_FILE) -> Content[T]:
    """Read the file. Raises: OSError, ValueError."""
    # Before the read, which may take longer than _SETTLED.
    now = time.time()
    text, status = read_text(path, largest)
    return Content(_stamp(status), now - status.st_mtime < _SETTLED, parse(text))


class WatchedFile(Generic[T]):
    """One file. Not thread-safe, except `read_ahead`."""

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], Content[T]],
        clock: Callable[[], float],
        executor: Executor | None = None,
        *,
        kept: str,
        lost: str,
        looks: int = 1,
    ) -> None:
        """`executor`: reads a changed file; a thread of its own if None. `kept`, `lost`: what follows if it cannot be read,
        with good content and without, for the log. `looks`: stats that must find the same change before it is read.
        """
        self.path = path
        self._read_anew = read
        self._clock = clock
        # The thread starts with the first task, after a daemon has forked.
        self._executor = executor or ThreadPoolExecutor(1, path.name)
        self._reading: Future[Content[T]] | None = None
        self._content: Content[T] | None = None
        self._ahead: Content[T] | None = None
        self._stat_at = -_STAT_EVERY
        self._problem = ""
        self._looks = looks
        self._found: tuple[_Stamp | None, int] = (None, 0)
        """The last stamp, and the stats that have found it one after another."""
        self._kept = kept
        self._lost = lost

    def current(self) -> T:
        """The content, or the last good one. Raises: AuthUnavailable if it was never readable."""
        if self._reading is not None:
            self._use_read()
        now = self._clock()
        if self._reading is None and now - self._stat_at >= _STAT_EVERY:
            self._stat_at = now
            self._stat_file()
        if self._content is None:
            raise AuthUnavailable
        return self._content.value

    def reload(self) -> None:
        """Read the file now, changed or not. Blocks."""
        self._stat_at = self._clock()
        # A read that has begun before would be older.
        self._reading = None
        self._use(self._read)

    def read_ahead(self) -> None:
        """Read the file in advance, for `reload`. May run in a thread."""
        try:
            self._ahead = self._read_anew(self.path)
        except (OSError, ValueError):
            # `reload` meets the same error, and logs it.
            self._ahead = None

    def _read(self) -> Content[T]:
        """The current content; the one read in advance if the file has not changed since."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.stamp == _stamp(os.stat(self.path)):
            return ahead
        return self._read_anew(self.path)

    def _stat_file(self) -> None:
        try:
            stamp = _stamp(os.stat(self.path))
        except OSError as error:
            self._log_problem(f"cannot be read: {error.strerror}")
            return
        self._found = stamp, self._found[1] + 1 if self._found[0] == stamp else 1
        if self._content is None:
            self._use(self._read)
        elif self._content.racy or self._content.stamp != stamp:
            if self._found[1] < self._looks:
                # Somebody may be writing it: the next look decides.
                return
            self._reading = self._executor.submit(self._read_anew, self.path)
            self._use_read()

    def _use_read(self) -> None:
        """Use the content that the thread has read, if it is done."""
        reading = self._reading
        if reading is not None and reading.done():
            self._reading = None
            self._use(reading.result)

    def _use(self, result: Callable[[], Content[T]]) -> None:
        try:
            self._content = result()
        except (OSError, ValueError) as error:
            self._log_problem(f"cannot be read: {error}")
        else:
            self._problem = ""

    def _log_problem(self, problem: str) -> None:
        """Log each problem once, not with every login."""
        if problem != self._problem:
            self._problem = problem
            _log.error("%s %s; %s", self.path, problem, self._kept if self._content else self._lost)


def is_unchanged(content: Content[T], path: Path) -> bool:
    """Has the file, which was read, not changed since? Raises: OSError."""
    return content.stamp == _stamp(os.stat(path))


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
