"""The passwd-file back end: users in a file of Dovecot's format, reread when it changes (`watched_file`).

A read makes one table name -> line, nothing else; a line is parsed when its user is looked up.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path

from attrs import frozen
from zope.interface import implementer

from mailserver.auth.backends.users_file import check
from mailserver.auth.backends.watched_file import Content, WatchedFile, read_content
from mailserver.auth.interfaces import (
    Hasher,
    IAuthBackend,
    IHashedPasswords,
    IOwnAddresses,
    IReadsAhead,
    IScramKeys,
    ITrustsCertificates,
    TypicalScram,
    User,
)
from mailserver.auth.limits import Limits
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import BadLine, BadName, PasswdEntry, normalise, parse_line
from mailserver.auth.schemes.quota_fields import quota_of
from mailserver.auth.schemes.scram_fields import keys_of, survey
from mailserver.config.model import Problem
from mailserver.sasl.scram_keys import BadKeys, ScramKeys, parse_decoy
from mailserver.types import Secret

_SAMPLE = 500
_FIELD = "userdb_addresses="
_ADDRESSES = re.compile(rf"[: ]{_FIELD}(\S*)")

_log = logging.getLogger(__name__)


@frozen
class _Table:
    """The content of the file at one time."""

    lines: Mapping[str, str]
    typical: str | None
    scram: Mapping[str, TypicalScram]
    """By hash."""
    owners: Mapping[str, frozenset[str]]
    """Users by each of their addresses (userdb_addresses)."""


@implementer(IAuthBackend, IHashedPasswords, IScramKeys, ITrustsCertificates, IReadsAhead, IOwnAddresses)
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
        self._file = WatchedFile(
            path,
            _read_table,
            clock,
            executor,
            kept="the last good users stay valid",
            lost="nobody can log in",
        )

    def find_user(self, name: str) -> User | None:
        """The user of that (normalised) name. Raises: AuthUnavailable if the file was never readable."""
        entry = self._entry(name)
        if entry is None:
            return None
        return User(entry.name, entry.home or None, entry.addresses, Limits(entry.networks, quota_of(entry)))

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
        return self._file.current().typical

    def scram_keys(self, user: User, hash_name: str) -> ScramKeys | None:
        """Keys in the password field or beside it; None for a disabled user, and for keys of another password."""
        entry, keys = self._entry(user.name), None
        if entry is not None and not entry.disabled:
            try:
                keys = keys_of(entry, hash_name)
            except BadKeys as error:
                _log.error("%s: user %s cannot log in by SCRAM: %s", self._path, user.name, error)
        if keys is None:
            parse_decoy(hash_name)
        return keys

    def typical_scram(self, hash_name: str) -> TypicalScram | None:
        """The typical keys of the file."""
        return self._file.current().scram.get(hash_name)

    def may_log_in(self, user: User) -> bool:
        """Does the user exist, and is it not disabled?"""
        entry = self._entry(user.name)
        return entry is not None and not entry.disabled

    def find_owners(self, address: str) -> frozenset[str]:
        """See IOwnAddresses. Raises: AuthUnavailable if the file was never readable."""
        return self._file.current().owners.get(address, frozenset())

    def reload(self) -> None:
        """Read the file now, changed or not. Blocks."""
        self._file.reload()

    def read_ahead(self) -> None:
        """Read the file in advance, for `reload`. May run in a thread."""
        self._file.read_ahead()

    def _entry(self, name: str) -> PasswdEntry | None:
        line = self._file.current().lines.get(name)
        if line is None:
            return None
        try:
            return parse_line(line)
        except (BadLine, BadName) as error:
            _log.error("%s: the line of %s cannot be used: %s", self._path, name, error)
            return None


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


def _read_table(path: Path) -> Content[_Table]:
    return read_content(path, _table)


def _table(text: str) -> _Table:
    lines: dict[str, str] = {}
    for line in text.split("\n"):
        name = line.partition(":")[0]
        if not name or name[0] == "#":
            continue
        # The cheap part of `normalise`: the rest is checked when the line is parsed.
        key = name.lower() if name.isascii() else _normal_or_empty(name)
        if key:
            lines.setdefault(key, line)
    found = list(lines.values())
    return _Table(lines, _typical(found), survey(found), _owners(lines))


def _owners(lines: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """By address. Lines are not parsed: one that cannot be used has no user who could send."""
    owners: dict[str, frozenset[str]] = {}
    for name, line in lines.items():
        if _FIELD in line and (found := _ADDRESSES.search(line)) is not None:
            for address in filter(None, found[1].lower().split(",")):
                owners[address] = owners.get(address, frozenset()) | {name}
    return owners


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
