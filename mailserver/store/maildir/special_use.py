"""Special-use attributes of mailboxes (RFC 6154), kept by GUID, so that they follow a rename.

An attribute that no mailbox has been given belongs to the first existing mailbox with a usual name for it: so the Sent
and Trash of a Maildir that came from another server are found.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Final

from mailserver.errors import NoSpace
from mailserver.store.maildir import safeio, uidlist
from mailserver.store.maildir.home import Home
from mailserver.types import MailboxId

FILE_NAME: Final = "mailserver-special-use"

_USUAL_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "\\Drafts": ("Drafts", "Draft"),
    "\\Sent": ("Sent", "Sent Messages", "Sent Items", "Sent Mail"),
    "\\Junk": ("Junk", "Spam", "Junk E-mail", "Junk Email", "Bulk Mail"),
    "\\Trash": ("Trash", "Deleted Items", "Deleted Messages"),
    "\\Archive": ("Archive", "Archives"),
}


def read(root: str) -> dict[MailboxId, frozenset[str]]:
    """What has been set; nothing when there is no file or it cannot be understood. Raises: StoreUnavailable."""
    try:
        document = json.loads(safeio.read_file(os.path.join(root, FILE_NAME)))
        return {
            MailboxId(bytes.fromhex(guid)): frozenset(filter(re.compile(r"\\[A-Za-z]+").fullmatch, attributes))
            for guid, attributes in document.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        return {}


def write(root: str, attributes: Mapping[MailboxId, Collection[str]]) -> None:
    """Keep it, durably. Raises: NoSpace, StoreUnavailable."""
    document = {guid.hex(): sorted(names) for guid, names in attributes.items() if names}
    safeio.replace(os.path.join(root, FILE_NAME), json.dumps(document, indent=1).encode("ascii"))


def given(home: Home, there: Collection[str]) -> dict[str, frozenset[str]]:
    """What has been set, by the names of mailboxes that are there.

    The GUIDs of other mailboxes do not matter: most are not even looked at. Raises: StoreUnavailable.
    """
    left = read(home.root)
    found: dict[str, frozenset[str]] = {}
    for guid in list(left):
        state = home.read(lambda index, guid=guid: index.mailboxes.by_guid(guid))  # type: ignore[misc]
        if state is not None and state.name in there and guid == _guid(home, state.name):
            found[state.name] = left.pop(guid)
    if left:
        # Another program has moved or removed it, or the index was lost.
        for name in there:
            there_now = _guid(home, name) if name not in found else None
            if there_now in left:
                found[name] = left.pop(there_now)
    return found


def _guid(home: Home, name: str) -> MailboxId | None:
    """As its uidlist has it."""
    try:
        header = uidlist.read_header(home.paths(name).uidlist)
    except FileNotFoundError:  # never seen by us, nor by Dovecot
        return None
    return None if header is None else header[1]


def set_special_use(home: Home, guid: MailboxId, attributes: frozenset[str]) -> None:
    """Give them to a mailbox of the index, and forget those that are gone. Raises: NoSpace, StoreUnavailable."""
    alive = {state.guid for state in home.read(lambda index: index.mailboxes.all())}
    kept = {known: uses for known, uses in read(home.root).items() if known in alive}
    write(home.root, kept | {guid: attributes})


def forget(root: str, guid: MailboxId) -> None:
    """A mailbox is gone: LIST would look for it. Raises: StoreUnavailable."""
    known = read(root)
    if known.pop(guid, None):
        with contextlib.suppress(NoSpace):
            write(root, known)


def assign(mailboxes: Collection[str], given: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Attributes by mailbox name: those given, and those that names tell, for mailboxes without any."""
    found = {name: attributes for name, attributes in given.items() if attributes}
    taken = set().union(*found.values())
    by_lower: dict[str, str] = {}
    for name in mailboxes:
        by_lower.setdefault(name.lower().removeprefix("inbox/"), name)
    for attribute, usual in _USUAL_NAMES.items():
        if attribute in taken:
            continue
        for candidate in usual:
            usual_name = by_lower.get(candidate.lower())
            if usual_name is not None and usual_name not in found:
                found[usual_name] = frozenset({attribute})
                break
    return found
