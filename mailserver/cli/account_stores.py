"""Where `mailserver user` finds and changes accounts: a users file or a directory, in the same terms."""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

import click
from attrs import frozen

from mailserver.auth.backends.directory import path_of
from mailserver.auth.backends.directory_lines import entry_of, password_of
from mailserver.auth.schemes.passwd import PasswdEntry
from mailserver.cli.users_file import EntryExists, NoSuchEntry, UsersFile
from mailserver.config.model import Config, Problem, Server
from mailserver.directory import changing, credentials, reading
from mailserver.directory.changing import Author
from mailserver.directory.model import BadRow, DirectoryUnavailable, Missing, NewAccount, Refused, State, Taken
from mailserver.directory.sqlite import WRITER_WAITS, SQLiteDatabase
from mailserver.system.as_user import files_as

_NO_KEYS: Final[Mapping[str, str]] = MappingProxyType({})


class AccountStore(Protocol):
    """A users file or a directory. All names are normalised."""

    @property
    def path(self) -> Path:
        """The file."""

    def find(self, name: str) -> PasswdEntry | None:
        """The user of that name. Raises: OSError."""

    def entries(self) -> Iterator[PasswdEntry]:
        """All users. Raises: OSError."""

    def add(self, name: str, stored: str, scram: Mapping[str, str] = _NO_KEYS) -> None:
        """Add a user, with the extra fields of its SCRAM keys. Raises: EntryExists, OSError."""

    def set_password(self, name: str, stored: str, scram: Mapping[str, str] = _NO_KEYS) -> None:
        """Replace the password and the SCRAM keys; a disabled user stays disabled. Raises: NoSuchEntry, OSError."""

    def scram_parameters(self, name: str) -> Mapping[str, str]:
        """The "rounds,salt" that keys of another password must have, by hash, for app passwords to keep theirs. Raises: OSError."""

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """Disable or enable the user; the password stays. Raises: NoSuchEntry, OSError."""

    def rename(self, name: str, new: str) -> None:
        """Rename the user. Raises: NoSuchEntry, EntryExists, OSError."""

    def delete(self, name: str) -> None:
        """Remove the user; its mail stays. Raises: NoSuchEntry, OSError."""

    def problems(self) -> list[Problem]:
        """The problems of single users."""


@frozen
class DirectoryStore:
    """Implements AccountStore over a directory, whose file is opened as the service's user."""

    path: Path
    server: Server | None = None
    """Names the user that files are opened as; None: the one who calls."""

    def find(self, name: str) -> PasswdEntry | None:
        """See AccountStore."""
        with self.opened() as database:
            account = reading.find_account(database, name)
            return None if account is None else entry_of(account)

    def entries(self) -> Iterator[PasswdEntry]:
        """See AccountStore."""
        with self.opened() as database:
            return iter([entry_of(account) for account in reading.accounts(database)])

    def add(
        self, name: str, stored: str, scram: Mapping[str, str] = _NO_KEYS, aliases: frozenset[str] = frozenset()
    ) -> None:
        """See AccountStore. `aliases` lead to the user, who may send as them."""
        password = password_of(PasswdEntry(name, stored, False, "", scram))
        with self.opened() as database:
            changing.add_account(database, author(), NewAccount(name, password, senders=aliases))

    def set_password(self, name: str, stored: str, scram: Mapping[str, str] = _NO_KEYS) -> None:
        """See AccountStore."""
        password = password_of(PasswdEntry(name, stored, False, "", scram))
        with self.opened() as database:
            changing.set_password(database, author(), name, password, keeps_apps=True)

    def scram_parameters(self, name: str) -> Mapping[str, str]:
        """See AccountStore."""
        with self.opened() as database:
            return credentials.parameters_in_use(database, name)

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """See AccountStore."""
        with self.opened() as database:
            changing.set_state(database, author(), name, State.DISABLED if disabled else State.ACTIVE)

    def rename(self, name: str, new: str) -> None:
        """See AccountStore."""
        with self.opened() as database:
            changing.rename(database, author(), name, new)

    def delete(self, name: str) -> None:
        """See AccountStore."""
        with self.opened() as database:
            changing.delete(database, author(), name)

    def problems(self) -> list[Problem]:
        """See AccountStore: a directory takes no faulty users."""
        return []

    def as_owner(self) -> AbstractContextManager[None]:
        """In the block, files are opened as the service's user."""
        return contextlib.nullcontext() if self.server is None else files_as(self.server)

    @contextlib.contextmanager
    def opened(self) -> Iterator[SQLiteDatabase]:
        """The open directory. Raises: NoSuchEntry, EntryExists, click.ClickException."""
        try:
            with self.as_owner():
                database = SQLiteDatabase.open(self.path, waits=WRITER_WAITS)
                try:
                    yield database
                finally:
                    database.close()
        except Missing as error:
            raise NoSuchEntry(error.name) from error
        except Taken as error:
            if error.kind == "user":
                raise EntryExists(error.name) from error
            raise click.ClickException(str(error)) from error
        except BadRow as error:
            raise click.ClickException(
                f"{self.path}: {error}; `mailserver directory restore` takes a copy back"
            ) from error
        except (DirectoryUnavailable, Refused) as error:
            raise click.ClickException(str(error)) from error


def stores_of(config: Config) -> Iterator[AccountStore]:
    """The back ends of the configuration that hold accounts, in their order. Raises: click.ClickException."""
    for backend in config.auth.backends:
        kind, _, argument = backend.use.partition(":")
        if kind == "file":
            yield UsersFile(Path(argument), config.server.user)
        elif kind == "directory":
            try:
                path = path_of(argument)
            except ValueError as error:
                raise click.ClickException(f"[auth] backends: {error}") from error
            yield DirectoryStore(path, config.server)


def home_of(config: Config, user: str) -> str | None:
    """The user's home directory, where one is set. Raises: click.ClickException."""
    for store in stores_of(config):
        try:
            entry = store.find(user)
        except OSError as error:
            raise click.ClickException(f"{store.path}: {error.strerror}") from error
        if entry is not None and entry.home:
            return entry.home
    return None


def author() -> Author:
    """The person at the terminal: with sudo the one who called it."""
    name = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    if not name:
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            name = str(os.getuid())
    return Author(name, int(time.time()))
