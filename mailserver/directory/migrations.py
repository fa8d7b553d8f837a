"""The numbered files of `schema/`, and their application to a database.

A migration is one transaction: one that is interrupted leaves the tables as they were. `meta.oldest` is the number of the
oldest schema whose programs can use the tables: files that only add something leave it as it is, so that the release
before still works after an upgrade.
"""

from __future__ import annotations

import secrets
from importlib.resources import files
from typing import Final

from mailserver.directory import statements
from mailserver.directory.database import Database
from mailserver.directory.model import DirectoryUnavailable, Refused

NEWEST: Final = 2
"""The number of the last file."""
OLDEST: Final = 1
"""The oldest schema whose programs can use the tables of the last file."""


def script(number: int) -> list[str]:
    """The statements of one file, without comments."""
    text = files("mailserver.directory").joinpath("schema", f"{number:04}.sql").read_text("utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [each.strip() for each in kept.split(";") if each.strip()]


def create(database: Database) -> None:
    """Make the tables in an empty database. Raises: DirectoryUnavailable."""
    with database.writing():
        _apply(database, 0)


def upgrade(database: Database) -> int:
    """Apply the files that are missing. Return their number. Raises: Refused, DirectoryUnavailable."""
    with database.writing():
        version = version_of(database)
        if version < NEWEST:
            _apply(database, version)
        return max(0, NEWEST - version)


def version_of(database: Database) -> int:
    """The number of the last file that was applied. Raises: Refused if these tables are too new."""
    version, oldest = _versions(database)
    if oldest > NEWEST:
        raise Refused(
            f"the directory has tables of version {version}, and this release knows {NEWEST}: use a newer one"
        )
    return version


def _versions(database: Database) -> tuple[int, int]:
    """Version and oldest of `meta`. Raises: DirectoryUnavailable for a row that cannot be used."""
    match database.rows(statements.META):
        case [(_id, int(version), int(oldest), _serial)]:
            return version, oldest
    raise DirectoryUnavailable("the row of the table meta cannot be used: the directory is damaged")


def _apply(database: Database, version: int) -> None:
    for number in range(version + 1, NEWEST + 1):
        for statement in script(number):
            database.change(statement)
        if not number - 1:
            database.change(statements.ADD_META, id=secrets.token_hex(16))
    database.change(statements.SET_VERSION, version=NEWEST, oldest=OLDEST)
