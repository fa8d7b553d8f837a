"""A main password that stays, with another hash of it.

This is no change of the account: it ends no session, and is not in the record of changes, where a row for each user of a
large directory would displace those of administrators.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.directory import reading, statements
from mailserver.directory.changing import account_id
from mailserver.directory.credentials import shared_parameters
from mailserver.directory.database import Database
from mailserver.directory.model import SCRAM_HASHES, StoredKeys


def missing_keys(database: Database, name: str) -> dict[str, str]:
    """The hashes under which the main password has no SCRAM keys, each with the account's "rounds,salt", which may be empty.

    Raises: Missing, DirectoryUnavailable.
    """
    shared = shared_parameters(database, name)
    account = reading.find_login(database, name)
    present = {} if account is None else account.password.scram
    return {hash_name: text for hash_name, text in shared.items() if hash_name not in present}


def renew_password(database: Database, name: str, before: str, after: str, scram: Mapping[str, StoredKeys]) -> bool:
    """Replace the entry `before` by `after`, and add SCRAM keys where there are none.

    Return False, and change nothing, if the entry is another one by now. Raises: Missing, DirectoryUnavailable.
    """
    with database.writing():
        identifier = account_id(database, name)
        account = reading.find_login(database, name)
        if account is None or account.password.secret != before:
            return False
        shared = shared_parameters(database, name)
        keys: dict[str, str | None] = {}
        for hash_name in SCRAM_HASHES:
            own, new = account.password.scram.get(hash_name), scram.get(hash_name)
            # Keys under another salt than those of the app passwords, which were added meanwhile, could not be found.
            if own is None and new is not None and shared[hash_name] in {"", new.parameters}:
                own, shared[hash_name] = new, new.parameters
            keys[hash_name] = None if own is None else own.keys
        database.change(
            statements.SET_SCRAM,
            id=identifier,
            serial=account.serial,
            scram_sha256=shared["SHA-256"],
            scram_sha1=shared["SHA-1"],
        )
        database.change(
            statements.RENEW_MAIN_CREDENTIAL,
            account=identifier,
            secret=after,
            scram_sha256=keys["SHA-256"],
            scram_sha1=keys["SHA-1"],
        )
    return True
