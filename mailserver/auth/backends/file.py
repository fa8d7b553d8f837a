"""The passwd-file back end: users in a file of Dovecot's format, reread when it changes.

The problems. A site has 100,000 lines, and no login and no other session may wait until all of them are parsed.
Administrators edit the file while the server runs, by replacing it or in place, and file timestamps have a granularity
of 4 ms.

The rules. A read makes one table name -> line, nothing else; a line is parsed when its user is looked up. At most once a
second a stat, compared by device, inode, size and mtime, decides whether to read again; a file that changed within two
seconds before it was read is read once more. Reading again happens in a thread, and the previous users remain valid
until it is done. Only the first read and an explicit `reload` block; after `read_ahead`, in a thread or before clients
can connect, they do not either. If the file cannot be read, the last good users stay.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

from attrs import frozen
from zope.interface import implementer

from mailserver.auth.backends.users_file import check, read_text
from mailserver.auth.interfaces import (
    Hasher,
    IAuthBackend,
    IHashedPasswords,
    IReadsAhead,
    IScramKeys,
    ITrustsCertificates,
    Limits,
    TypicalScram,
    User,
)
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import BadLine, BadName, PasswdEntry, normalise, parse_line
from mailserver.auth.schemes.scram_fields import keys_of, survey
from mailserver.config.model import Problem
from mailserver.errors import AuthUnavailable
from mailserver.sasl.scram_keys import BadKeys, ScramKeys
from mailserver.types import Secret

_STAT_EVERY = 1.0
_SETTLED = 2.0
_SAMPLE = 500

_log = logging.getLogger(__name__)


@frozen
class _Stamp:
    """The identity of one state of the file."""

    device: int
    inode: int
    size: int
    mtime: int


@frozen
class _Table:
    """The content of the file at one time."""

    stamp: _Stamp
    racy: bool
    """The file had just changed: other content may have the same stamp later."""
    lines: Mapping[str, str]
    typical: str | None
    scram: Mapping[str, TypicalScram]
    """By hash."""


@implementer(IAuthBackend, IHashedPasswords, IScramKeys, ITrustsCertificates, IReadsAhead)
class FileBackend:
    """The users of one file. Not thread-safe, except `read_ahead`."""

    def __init__(
        self,
        path: Path,
        hasher: Hasher,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        """`executor`: reads a changed file; a thread of its own if None."""
        self._path = path
        self._hasher = hasher
        self._clock = clock
        # The thread starts with the first task, after a daemon has forked.
        self._executor = executor or ThreadPoolExecutor(1, "users-file")
        self._reading: Future[_Table] | None = None
        self._table: _Table | None = None
        self._ahead: _Table | None = None
        self._stat_at = -_STAT_EVERY
        self._problem = ""

    def find_user(self, name: str) -> User | None:
        """The user of that (normalised) name. Raises: AuthUnavailable if the file was never readable."""
        entry = self._entry(name)
        if entry is None:
            return None
        return User(entry.name, entry.home or None, entry.addresses, Limits(entry.networks))

    async def verify_password(self, user: User, password: Secret) -> bool:
        """Check the password in the hash pool. Raises: AuthUnavailable."""
        stored = self.password_hash(user)
        return bool(stored) and await self._hasher.verify(stored or "", password)

    def password_hash(self, user: User) -> str | None:
        """The stored entry; None for a disabled user; "" where the line has none."""
        entry = self._entry(user.name)
        return None if entry is None or entry.disabled else entry.stored

    def typical_hash(self) -> str | None:
        """A dummy of the scheme and cost that most entries have."""
        return self._read_if_changed().typical

    def scram_keys(self, user: User, hash_name: str) -> ScramKeys | None:
        """Keys in the password field or beside it; None for a disabled user, and for keys of another password."""
        entry = self._entry(user.name)
        if entry is None or entry.disabled:
            return None
        try:
            return keys_of(entry, hash_name)
        except BadKeys as error:
            _log.error("%s: user %s cannot log in by SCRAM: %s", self._path, user.name, error)
            return None

    def typical_scram(self, hash_name: str) -> TypicalScram | None:
        """The typical keys of the file."""
        return self._read_if_changed().scram.get(hash_name)

    def may_log_in(self, user: User) -> bool:
        """Does the user exist, and is it not disabled?"""
        entry = self._entry(user.name)
        return entry is not None and not entry.disabled

    def reload(self) -> None:
        """Read the file now, changed or not. Blocks."""
        self._stat_at = self._clock()
        # A read that has begun before would be older.
        self._reading = None
        self._use(self._read)

    def read_ahead(self) -> None:
        """Read the file in advance, for `reload`. May run in a thread."""
        try:
            self._ahead = _read_table(self._path)
        except (OSError, ValueError):
            # `reload` meets the same error, and logs it.
            self._ahead = None

    def _read(self) -> _Table:
        """The current content; the one read in advance if the file has not changed since."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.stamp == _stamp(os.stat(self._path)):
            return ahead
        return _read_table(self._path)

    def _entry(self, name: str) -> PasswdEntry | None:
        line = self._read_if_changed().lines.get(name)
        if line is None:
            return None
        try:
            return parse_line(line)
        except (BadLine, BadName) as error:
            _log.error("%s: the line of %s cannot be used: %s", self._path, name, error)
            return None

    def _read_if_changed(self) -> _Table:
        if self._reading is not None:
            self._use_read()
        now = self._clock()
        if self._reading is None and now - self._stat_at >= _STAT_EVERY:
            self._stat_at = now
            self._stat_file()
        if self._table is None:
            raise AuthUnavailable
        return self._table

    def _stat_file(self) -> None:
        try:
            stamp = _stamp(os.stat(self._path))
        except OSError as error:
            self._log_problem(f"cannot be read: {error.strerror}")
            return
        if self._table is None:
            self._use(self._read)
        elif self._table.racy or self._table.stamp != stamp:
            self._reading = self._executor.submit(_read_table, self._path)
            self._use_read()

    def _use_read(self) -> None:
        """Use the content that the thread has read, if it is done."""
        reading = self._reading
        if reading is not None and reading.done():
            self._reading = None
            self._use(reading.result)

    def _use(self, result: Callable[[], _Table]) -> None:
        try:
            self._table = result()
        except (OSError, ValueError) as error:
            self._log_problem(f"cannot be read: {error}")
        else:
            self._problem = ""

    def _log_problem(self, problem: str) -> None:
        """Log each problem once, not with every login."""
        if problem != self._problem:
            self._problem = problem
            _log.error(
                "%s %s; %s",
                self._path,
                problem,
                "the last good users stay valid" if self._table else "nobody can log in",
            )


def make_backend(argument: str, hasher: Hasher) -> FileBackend:
    """The back end of `file:PATH`. Raises: ValueError for a path that is not absolute."""
    return FileBackend(_path(argument), hasher)


def check_backend(argument: str) -> list[Problem]:
    """Find every problem of the file, for the check of a configuration. Raises: ValueError for a bad argument."""
    return check(_path(argument))


def _path(argument: str) -> Path:
    if not argument.startswith("/"):
        raise ValueError("file: needs the absolute path of a users file, as in file:/etc/mailserver/users")
    return Path(argument)


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _read_table(path: Path) -> _Table:
    # Before the read, which may take longer than _SETTLED.
    now = time.time()
    text, status = read_text(path)
    lines: dict[str, str] = {}
    for line in text.split("\n"):
        name = line.partition(":")[0]
        if not name or name[0] == "#":
            continue
        # The cheap part of `normalise`: the rest is checked when the line is parsed.
        key = name.lower() if name.isascii() else _normal_or_empty(name)
        if key:
            lines.setdefault(key, line)
    racy = now - status.st_mtime < _SETTLED
    found = list(lines.values())
    return _Table(_stamp(status), racy, lines, _typical(found), survey(found))


def _normal_or_empty(name: str) -> str:
    try:
        return normalise(name)
    except BadName:
        return ""


def _typical(lines: list[str]) -> str | None:
    """A dummy of the most frequent kind in a sample of the file. PLAIN costs no time and does not count."""
    kinds: Counter[str] = Counter()
    dummies: dict[str, str] = {}
    for line in lines[:: max(1, len(lines) // _SAMPLE)]:
        try:
            stored = parse_line(line).stored
            kind = schemes.parse(stored).kind
            if kind not in dummies:
                dummies[kind] = schemes.dummy_like(stored)
        except (BadLine, BadName, schemes.BadHash):
            continue
        if kind != "PLAIN":
            kinds[kind] += 1
    return dummies[kinds.most_common(1)[0][0]] if kinds else None
