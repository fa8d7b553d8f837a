"""The app passwords of a document: read from a database, and made as a plan says, within its transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast

from mailserver.directory import changing, credentials, statements
from mailserver.directory.changing import Record
from mailserver.directory.database import Database
from mailserver.directory.document import AppPassword
from mailserver.directory.model import SCRAM_HASHES, StoredKeys

CHANGED: Final = "app password changed"

Pair = tuple[AppPassword | None, AppPassword | None]
"""An app password before and after; None where it is not."""


def load(database: Database, names: Mapping[str, str]) -> dict[tuple[str, str], AppPassword]:
    """All, by account and age; `names` are those of accounts by their identifiers.

    Raises: DirectoryUnavailable.
    """
    found = []
    for row in database.rows(statements.ALL_APP_PASSWORDS):
        account, identifier, label, digest, protocols, expires, created, made_by, *scram = row
        each = AppPassword(
            names[str(account)],
            str(label),
            str(digest),
            {
                hash_name: StoredKeys(str(shared), str(own))
                for hash_name, shared, own in zip(SCRAM_HASHES, scram[:2], scram[2:], strict=True)
                if shared and own
            },
            credentials.protocols_of(protocols),
            cast("int | None", expires),
            cast("int", created),
            str(made_by),
            str(identifier),
        )
        found.append(each)
    found.sort(key=lambda each: (each.user, each.created or 0, each.label))
    return {(each.user, each.label): each for each in found}


def remove(record: Record, pairs: Iterable[Pair]) -> None:
    """Remove the rows that go or are replaced, before the users. Raises: DirectoryUnavailable."""
    for before, _after in pairs:
        if before is not None:
            record.database.change(statements.REMOVE_CREDENTIAL, id=before.id)


def put(record: Record, pairs: Iterable[Pair], *, record_new: bool) -> None:
    """Add the rows, after the users, and record what concerns sessions. `record_new`: new ones, too.

    Raises: Missing, DirectoryUnavailable.
    """
    for before, after in pairs:
        identifier = "" if after is None else _add(record, after)
        goes_on = before is not None and after is not None and not _ends_sessions(before, after)
        if before is not None and not goes_on:
            record.add(credentials.REVOKED, before.user, credential=before.id, label=before.label)
        if after is not None and goes_on:
            # Of no account: its sessions go on.
            record.add(CHANGED, "", address=after.user, label=after.label)
        elif after is not None and record_new:
            record.add(credentials.ADDED, after.user, credential=identifier, label=after.label)


def _add(record: Record, new: AppPassword) -> str:
    database, author = record.database, record.author
    account = changing.account_id(database, new.user)
    [row] = database.rows(statements.SCRAM_PARAMETERS, id=account)
    shared = dict(zip(SCRAM_HASHES, map(str, row), strict=True))
    # Other keys of the account have the same: the plan says so.
    shared |= {hash_name: keys.parameters for hash_name, keys in new.scram.items()}
    database.change(
        statements.SET_SCRAM,
        id=account,
        serial=record.serial,
        scram_sha256=shared["SHA-256"],
        scram_sha1=shared["SHA-1"],
    )
    identifier = new.id or credentials.new_id()
    database.change(
        statements.ADD_APP_PASSWORD,
        id=identifier,
        account=account,
        label=new.label,
        probe=new.digest,
        scram_sha256=new.scram["SHA-256"].keys if "SHA-256" in new.scram else None,
        scram_sha1=new.scram["SHA-1"].keys if "SHA-1" in new.scram else None,
        protocols=credentials.protocols_text(new.protocols),
        expires=new.expires,
        at=author.at if new.created is None else new.created,
        who=new.made_by or author.who,
    )
    return identifier


def _ends_sessions(before: AppPassword, after: AppPassword) -> bool:
    """Is it another password, or for other protocols? Its sessions end at its expiry by themselves."""
    return before.digest != after.digest or before.protocols != after.protocols
