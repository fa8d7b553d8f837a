"""App passwords from one document to another: what is kept, what cannot be, and the words for it (no I/O).

All SCRAM keys of an account have one salt and one number of rounds (RFC 5802 3): those of the main password and of the app
passwords. So keys that do not fit are a fault of the document, and another main password may take the keys of older ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import attrs

from mailserver.directory.document import AppPassword, Document
from mailserver.directory.document_tables import Fault, app_password_key
from mailserver.directory.field_rules import MOST_APP_PASSWORDS

AppPasswords = Mapping[tuple[str, str], AppPassword]
"""By user and label."""


def completed(before: Document, given: Document, notes: list[str]) -> dict[tuple[str, str], AppPassword]:
    """The app passwords of a document: one without a digest keeps the one of the directory, if there is one."""
    found = {}
    for key, each in given.app_passwords.items():
        old = before.app_passwords.get(key)
        if each.digest:
            # What is not said of an app password that stays is as it was.
            same = old if old is not None and old.digest == each.digest else None
            found[key] = attrs.evolve(
                each,
                id="" if same is None else same.id,
                created=each.created if each.created is not None or same is None else same.created,
                made_by=each.made_by if each.made_by or same is None else same.made_by,
            )
        elif old is not None:
            found[key] = attrs.evolve(old, protocols=each.protocols, expires=each.expires)
        else:
            notes.append(
                f"the app password {each.label} of {each.user} is left out: without its digest none can be made"
            )
    return found


def without_lost_keys(before: Document, after: Document, given: AppPasswords) -> dict[tuple[str, str], AppPassword]:
    """The app passwords of `after`: those that are not `given` lose keys that do not fit another main password's."""
    found = dict(after.app_passwords)
    for key, each in found.items():
        if key in given:
            continue
        shared = _main_parameters(before, after, each.user)
        if any(keys.parameters != shared.get(hash_name, keys.parameters) for hash_name, keys in each.scram.items()):
            found[key] = attrs.evolve(each, scram={})
    return found


def faults(before: Document, after: Document, given: AppPasswords, lines: Mapping[str, int]) -> Iterator[Fault]:
    """What cannot be."""
    owners: dict[str | None, tuple[str, str]] = {}
    parameters: dict[tuple[str, str], str] = {}
    for key, each in after.app_passwords.items():
        line = lines.get(app_password_key(*key)) or None
        what = f"the app password {each.label} of {each.user}"
        if each.user not in after.users:
            yield Fault(f"{what}: there is no such user", line)
        first = owners.setdefault(each.digest, key)
        if first != key:
            yield Fault(f"{what} is the same as {first[1]} of {first[0]}", line)
        shared = _main_parameters(before, after, each.user)
        for hash_name, keys in each.scram.items():
            known = shared.get(hash_name) or parameters.setdefault((each.user, hash_name), keys.parameters)
            if key in given and keys.parameters != known:
                yield Fault(f"{what}: its keys have not the rounds and salt of the user's other SCRAM keys", line)
    for user, number in Counter(user for user, _label in after.app_passwords).items():
        if number > MOST_APP_PASSWORDS:
            yield Fault(f"{user} would have {number} app passwords, and the most are {MOST_APP_PASSWORDS}", None)


def words(before: AppPassword | None, after: AppPassword | None) -> str:
    """What is different, without secrets."""
    if after is None:
        return "revoked"
    if before is None:
        return f"for {_protocols(after)}, {_until(after)}"
    return "; ".join(_changes(before, after))


def _changes(before: AppPassword, after: AppPassword) -> Iterator[str]:
    if before.digest != after.digest:
        yield "another password"
    if before.protocols != after.protocols:
        yield f"it works for {_protocols(after)}"
    if before.expires != after.expires:
        yield f"it works {_until(after)}"
    if before.scram != after.scram:
        yield "other SCRAM keys" if after.scram else "no SCRAM keys any more"
    if (before.created, before.made_by) != (after.created, after.made_by):
        yield "another time or author"


def _main_parameters(before: Document, after: Document, user: str) -> dict[str, str]:
    """The "rounds,salt" of the main password's keys, by hash."""
    for document in (after, before):
        found = document.users.get(user)
        if found is not None and found.password is not None:
            return {hash_name: keys.parameters for hash_name, keys in found.password.scram.items()}
    return {}


def _protocols(each: AppPassword) -> str:
    return "all protocols" if each.protocols is None else ", ".join(sorted(each.protocols)) or "no protocol"


def _until(each: AppPassword) -> str:
    return (
        "for ever" if each.expires is None else f"until {datetime.fromtimestamp(each.expires, UTC):%Y-%m-%d %H:%M} UTC"
    )
