"""The back end `directory:PATH`: accounts of a directory, an SQLite file that `mailserver user` and `mailserver directory` change.

It is asked on the reactor's thread: a look-up takes some ten microseconds, whatever the number of accounts. A change is
seen by the next look-up. If the file cannot be read, or another one was moved over it, logins are unavailable until it is
opened again, at most once a second; nobody is called unknown or wrong. Where a part of it is damaged, that is so for those
alone whose rows are there.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from zope.interface import implementer

from mailserver.auth.backends.directory_credentials import DirectoryCredentials
from mailserver.auth.backends.directory_feed import DirectoryFeed, Position
from mailserver.auth.backends.directory_limits import limits_of
from mailserver.auth.backends.directory_problems import DirectoryProblems
from mailserver.auth.backends.directory_scram import ScramKeysCache
from mailserver.auth.backends.directory_survey import typical_hash, typical_scram
from mailserver.auth.changed_users import ChangedUsers
from mailserver.auth.credential_store import IStoresCredentials
from mailserver.auth.interfaces import (
    DomainEntry,
    Entry,
    FoundAppPassword,
    Hasher,
    IAddresses,
    IAppPasswords,
    IAuthBackend,
    IDelegates,
    IHashedPasswords,
    IRecordsChanges,
    IReloadable,
    IScramKeys,
    ITrustsCertificates,
    TypicalScram,
    User,
)
from mailserver.config.model import Problem
from mailserver.directory import addresses, credentials, delegates, reading
from mailserver.directory.credentials import AppPassword
from mailserver.directory.model import DirectoryDamaged, DirectoryUnavailable, LoginRow, Refused, StoredDomain
from mailserver.directory.sqlite import SQLiteDatabase, read_ahead
from mailserver.errors import AuthUnavailable
from mailserver.sasl.scram_keys import ScramKeys
from mailserver.types import Secret

T = TypeVar("T")

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the file's name, and between two attempts to open it."""
_SURVEY_EVERY: Final = 5.0
"""Seconds between two looks at what is typical, where the directory changes."""
_MAX_RECENT: Final = 512
"""Accounts, addresses and domains of each that are remembered until the next change of anybody."""
_MAX_OWN_NAMES: Final = 2048
"""Names of accounts that are known to be no addresses."""
_FEW: Final = 20
"""Targets of an address that is remembered."""
_MAX_TARGETS: Final = 1001
"""Targets of one address that are read: more than one message may have."""

_log = logging.getLogger(__name__)


class _Login(NamedTuple):
    """An account, as it was looked up, and what the login service gets of it."""

    account: LoginRow
    user: User


@implementer(
    IAuthBackend,
    IAddresses,
    IAppPasswords,
    IHashedPasswords,
    IScramKeys,
    ITrustsCertificates,
    IReloadable,
    IRecordsChanges,
    IStoresCredentials,
    IDelegates,
)
class DirectoryBackend:
    """The accounts of one directory. Not thread-safe."""

    def __init__(
        self,
        path: Path,
        hasher: Hasher,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.credentials = DirectoryCredentials(path)
        """See IStoresCredentials."""
        self._path = path
        self._hasher = hasher
        self._clock = clock
        self._wall = wall
        self._feed = DirectoryFeed(path, self._ask, wall)
        self._database: SQLiteDatabase | None = None
        self._is_read_ahead = False
        self._looked = -_LOOK_EVERY
        self._state = -1
        self._recent: dict[str, _Login | None] = {}
        self._keys = ScramKeysCache(_MAX_RECENT)
        self._existing = ""
        """The name of an account that was there; empty: none was looked up."""
        self._entries: dict[str, Entry | None] = {}
        """Recent ones of few targets, and names that are no address."""
        self._own_names: set[str] = set()
        """Names of accounts that recent entries have as targets."""
        self._domains: dict[str, StoredDomain | None] = {}
        self._survey_due = True
        self._surveyed = -_SURVEY_EVERY
        self._typical: str | None = None
        self._scram: dict[str, TypicalScram | None] = {}
        self._problems = DirectoryProblems(clock)

    def find_user(self, name: str) -> User | None:
        """The user of that name. Raises: AuthUnavailable."""
        login = self._login(name)
        return None if login is None else login.user

    def find_app_password(self, probe: str) -> FoundAppPassword | None:
        """See IAppPasswords. Raises: AuthUnavailable."""

        def question(database: SQLiteDatabase) -> FoundAppPassword | None:
            found = credentials.find_app_password(database, probe)
            return None if found is None else self._usable(database, *found)

        return self._ask_of("an app password", question)

    def app_password(self, credential: str, user: User) -> FoundAppPassword | None:
        """See IAppPasswords. Raises: AuthUnavailable."""

        def question(database: SQLiteDatabase) -> FoundAppPassword | None:
            found = credentials.app_password_of_id(database, credential)
            # It may have been revoked, and the account renamed.
            return None if found is None or found[1].name != user.name else self._usable(database, *found)

        return self._ask_of(user.name, question)

    def _usable(self, database: SQLiteDatabase, found: AppPassword, account: LoginRow) -> FoundAppPassword | None:
        if not found.is_active or (found.expires is not None and found.expires <= self._wall()):
            return None
        return FoundAppPassword(self._user(database, account, found.id), found.label, found.protocols)

    def find_address(self, name: str) -> Entry | None:
        """See IAddresses. Raises: AuthUnavailable."""

        def question(database: SQLiteDatabase) -> Entry | None:
            # No address has the name of an account, and that of most recipients is remembered.
            known = name in self._own_names or self._recent.get(name) is not None
            return None if known else self._entry(database, name)

        return self._ask(question)

    def find_domain(self, name: str) -> DomainEntry | None:
        """See IAddresses. Raises: AuthUnavailable."""
        stored = self._ask(lambda database: self._domain(database, name))
        return None if stored is None else DomainEntry(stored.alias_of, stored.detail, stored.enabled)

    async def verify_password(self, user: User, password: Secret) -> bool:
        """Check the password in the hash pool. Raises: AuthUnavailable."""
        stored = self.password_hash(user)
        return bool(stored) and await self._hasher.verify(stored or "", password)

    def password_hash(self, user: User) -> str | None:
        """The stored entry; None for a disabled user. Raises: AuthUnavailable."""
        account = self._active(user)
        return None if account is None else account.secret

    def scram_keys(self, user: User, hash_name: str) -> ScramKeys | None:
        """The keys of the main password and the app passwords; None for a disabled user. Raises: AuthUnavailable."""

        def read(database: SQLiteDatabase) -> tuple[LoginRow | None, list[AppPassword]]:
            login = self._look_up(database, user.name)
            if login is None and (decoy := reading.find_login_row(database, self._existing)) is not None:
                # The work that an account takes, so that the time does not show whether there is one.
                self._user(database, decoy)
            return None if login is None else login.account, credentials.app_passwords(database, user.name)

        def question(database: SQLiteDatabase) -> ScramKeys | None:
            return self._keys.find(user.name, hash_name, self._wall(), lambda: read(database))

        try:
            return self._ask(question)
        except ValueError as error:
            _log.error("%s: user %s cannot log in by SCRAM: %s", self._path, user.name, error)
            return None

    def may_act_for(self, delegate: str, user: str, domain: str) -> bool:
        """See IDelegates. Raises: AuthUnavailable."""
        now = int(self._wall())
        return self._ask(lambda database: delegates.may_act_for(database, delegate, user, domain, now))

    def may_log_in(self, user: User) -> bool:
        """Does the user exist, and is it not disabled? Raises: AuthUnavailable."""
        return self._active(user) is not None

    def typical_hash(self) -> str | None:
        """A dummy of the scheme and cost that most passwords have. Raises: AuthUnavailable."""
        self._ask(_nothing)
        return self._typical

    def typical_scram(self, hash_name: str) -> TypicalScram | None:
        """The typical keys; None while the directory cannot be read."""
        try:
            self._ask(_nothing)
        except AuthUnavailable:
            return None
        return self._scram.get(hash_name)

    def changed_users(self) -> ChangedUsers | None:
        """See IChanges."""
        return self._feed.changed_users()

    def position(self) -> Position:
        """See IRecordsChanges. Raises: AuthUnavailable."""
        return self._feed.position()

    def changed_since(self, position: object) -> ChangedUsers | None:
        """See IRecordsChanges. Raises: AuthUnavailable."""
        assert isinstance(position, Position)
        return self._feed.changed_since(position)

    def reload(self) -> None:
        """Look at the file again at the next question."""
        self._looked = -_LOOK_EVERY

    def _active(self, user: User) -> LoginRow | None:
        login = self._login(user.name)
        return login.account if login is not None and login.account.is_active else None

    def _login(self, name: str) -> _Login | None:
        return self._ask_of(name, lambda database: self._look_up(database, name))

    def _ask_of(self, name: str, question: Callable[[SQLiteDatabase], T]) -> T:
        """Ask for what a row of the account of that name may make unusable. Raises: AuthUnavailable."""
        try:
            return self._ask(question)
        except ValueError as error:
            # This account's row alone, or that of its domain.
            _log.error("%s: the account %s cannot be used: %s", self._path, name, error)
            raise AuthUnavailable from error

    def _look_up(self, database: SQLiteDatabase, name: str) -> _Login | None:
        """Raises: ValueError for a row that cannot be used."""
        if name not in self._recent:
            if len(self._recent) >= _MAX_RECENT:
                self._recent.clear()
            account = reading.find_login_row(database, name)
            self._existing = self._existing if account is None else name
            self._recent[name] = None if account is None else _Login(account, self._user(database, account))
        return self._recent[name]

    def _user(self, database: SQLiteDatabase, account: LoginRow, credential: str = "") -> User:
        domain = self._domain(database, account.name.rpartition("@")[2])
        limits = limits_of(account, domain)
        return User(account.name, account.home or None, limits=limits, credential=credential)

    def _entry(self, database: SQLiteDatabase, name: str) -> Entry | None:
        if name in self._entries:
            return self._entries[name]
        targets = addresses.find_targets(database, name, _MAX_TARGETS)
        senders = frozenset(each.name for each in targets if each.is_account and each.may_send)
        entry = Entry(tuple(each.name for each in targets), senders) if targets else None
        if len(self._own_names) + len(targets) > _MAX_OWN_NAMES:
            self._own_names.clear()
        self._own_names.update(each.name for each in targets if each.is_account)
        if len(targets) <= _FEW:
            if len(self._entries) >= _MAX_RECENT:
                self._entries.clear()
            self._entries[name] = entry
        return entry

    def _domain(self, database: SQLiteDatabase, name: str) -> StoredDomain | None:
        if name not in self._domains:
            if len(self._domains) >= _MAX_RECENT:
                self._domains.clear()
            self._domains[name] = addresses.find_stored_domain(database, name)
        return self._domains[name]

    def _forget(self) -> None:
        """Forget all that was looked up: somebody has changed the directory."""
        self._recent.clear()
        self._keys.clear()
        self._entries.clear()
        self._own_names.clear()
        self._domains.clear()
        self._feed.changed()

    def _ask(self, question: Callable[[SQLiteDatabase], T]) -> T:
        """Ask the open database, once its state is known. Raises: AuthUnavailable."""
        try:
            database = self._current()
            answer = question(database)
        except (DirectoryUnavailable, Refused) as error:
            if self._is_open_in_part(error):
                self._problems.log_damage(str(error))
            else:
                self._problems.log_outage(str(error))
            raise AuthUnavailable from error
        self._problems.answered()
        return answer

    def _current(self) -> SQLiteDatabase:
        """The open database, after what was remembered of an older state is forgotten. Raises: DirectoryUnavailable, Refused."""
        database = self._opened()
        state = database.state()
        if state != self._state:
            self._forget()
            self._state = state
            self._survey_due = True
        if self._survey_due and self._clock() - self._surveyed >= _SURVEY_EVERY:
            self._survey(database)
        return database

    def _is_open_in_part(self, error: Exception) -> bool:
        """Can other questions be answered after this fault? If not, the database is closed."""
        if self._database is not None and isinstance(error, DirectoryDamaged):
            with contextlib.suppress(DirectoryUnavailable):
                self._database.forget_pages()
                return True
        self._close()
        return False

    def _opened(self) -> SQLiteDatabase:
        now = self._clock()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            if self._database is not None and self._database.is_replaced():
                self._close()
                self._feed.replaced()
            if self._database is None:
                if not self._is_read_ahead:
                    # Only before the first one is open: it would lose its locks.
                    self._is_read_ahead = True
                    read_ahead(self._path)
                self._database = SQLiteDatabase.open(self._path)
                self._feed.opened(self._database)
        if self._database is None:
            raise DirectoryUnavailable(self._problems.current or f"{self._path} cannot be opened")
        return self._database

    def _close(self) -> None:
        # First: if closing fails, the next question must not meet a closed database.
        database, self._database = self._database, None
        self._state = -1
        self._forget()
        if database is not None:
            database.close()

    def _survey(self, database: SQLiteDatabase) -> None:
        """What is typical, for the dummies of unknown users."""
        self._survey_due, self._surveyed = False, self._clock()
        try:
            typical = typical_hash(reading.sample_of_secrets(database))
            scram = {
                name: typical_scram(
                    reading.sample_of_scram(database, name), everybody=reading.everybody_has_scram(database, name)
                )
                for name in ("SHA-256", "SHA-1")
            }
        except DirectoryDamaged as error:
            # Those whose rows are whole can be answered; what was typical before is so still.
            self._problems.log_damage(str(error))
        else:
            self._typical, self._scram = typical, scram


def make_backend(argument: str, hasher: Hasher) -> DirectoryBackend:
    """The back end of `directory:PATH`. Raises: ValueError for a path that is not absolute."""
    return DirectoryBackend(path_of(argument), hasher)


def check_backend(argument: str) -> list[Problem]:
    """Check that the file is a directory of a version that this release knows. Raises: ValueError for a bad argument."""
    path = path_of(argument)
    try:
        SQLiteDatabase.open(path).close()
    except (DirectoryUnavailable, Refused) as error:
        return [Problem(str(path), "", "", f"the directory cannot be used: {error}")]
    if path.stat().st_mode & 0o077:
        return [Problem(str(path), "", "", "others may open this directory: chmod go= it", warning=True)]
    return []


def path_of(argument: str) -> Path:
    """The path in an argument. Raises: ValueError if it is not absolute."""
    if not argument.startswith("/"):
        raise ValueError(
            "directory: needs the absolute path of a file, as in directory:/var/lib/mailserver-accounts/directory.db"
        )
    return Path(argument)


def _nothing(_database: SQLiteDatabase) -> None:
    """Ask nothing: what is typical is looked up where the state has changed."""
