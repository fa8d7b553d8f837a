"""The changes of a directory that the server itself makes, each through a connection of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from mailserver.auth.interfaces import User
from mailserver.directory import credentials, renewal
from mailserver.directory.changing import Author
from mailserver.directory.model import DirectoryUnavailable, Missing, Refused, StoredKeys
from mailserver.directory.sqlite import WRITER_WAITS, SQLiteDatabase
from mailserver.errors import AuthUnavailable

EXPOSED: Final = "the server, as it came in clear text"
"""The author of a revocation."""


class DirectoryCredentials:
    """Implements `credential_store.CredentialStore`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def missing_scram(self, user: User) -> Mapping[str, str]:
        """See CredentialStore."""
        with self._opened() as database:
            return renewal.missing_keys(database, user.name)

    def renew(self, user: User, before: str, after: str, scram: Mapping[str, str]) -> bool:
        """See CredentialStore."""
        keys = {hash_name: StoredKeys.parse(text) for hash_name, text in scram.items()}
        with self._opened() as database:
            return renewal.renew_password(database, user.name, before, after, keys)

    def revoke(self, user: User, credential: str) -> str | None:
        """See CredentialStore."""
        with self._opened() as database:
            if all(each.id != credential for each in credentials.app_passwords(database, user.name)):
                return None
            author = Author(EXPOSED, int(time.time()))
            return credentials.revoke(database, author, user.name, credential).label

    @contextlib.contextmanager
    def _opened(self) -> Iterator[SQLiteDatabase]:
        try:
            database = SQLiteDatabase.open(self._path, waits=WRITER_WAITS)
            try:
                yield database
            finally:
                database.close()
        except (DirectoryUnavailable, Missing, Refused) as error:
            raise AuthUnavailable(str(error)) from error
