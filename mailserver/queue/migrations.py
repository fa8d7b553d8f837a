"""The numbered files of `schema/`, and their application to the rows.

A migration is one transaction. `meta.oldest` is the oldest schema whose programs can use the tables: files that only add
something leave it as it is, so that the release before still works after an upgrade.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import apsw

from mailserver.queue import statements
from mailserver.queue.model import QueueDamaged, QueueTooNew

NEWEST: Final = 1
"""The number of the last file."""
OLDEST: Final = 1
"""The oldest schema whose programs can use the tables of the last file."""


def script(number: int) -> list[str]:
    """The statements of one file, without comments."""
    text = files("mailserver.queue").joinpath("schema", f"{number:04}.sql").read_text("utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return [each.strip() for each in kept.split(";") if each.strip()]


def version_of(connection: apsw.Connection) -> int:
    """The number of the last file that was applied. Raises: QueueTooNew, QueueDamaged, apsw.Error."""
    match connection.execute(statements.META).fetchall():
        case [(int(version), int(oldest))]:
            if oldest > NEWEST:
                raise QueueTooNew(f"the mail queue has tables of version {version}, and this release knows {NEWEST}")
            return version
    raise QueueDamaged


def apply(connection: apsw.Connection, version: int) -> None:
    """Apply the files behind that version, within the caller's transaction. Raises: apsw.Error."""
    for number in range(version + 1, NEWEST + 1):
        for statement in script(number):
            connection.execute(statement)
        if number == 1:
            connection.execute(statements.ADD_META)
    connection.execute(statements.SET_VERSION, {"version": NEWEST, "oldest": OLDEST})
