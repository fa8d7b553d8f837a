"""Special-use attributes of mailboxes (RFC 6154): each belongs to one mailbox of an account at most.

That mailbox is, in this order:

1. The mailbox that was given the attribute: when the account was made, by CREATE, or by the administrator. This is kept
in a text file of the account by GUID, so that it follows a rename and survives the loss of the index, or a time under
Dovecot.

2. The first existing mailbox of the names that the configuration lists.

3. The first existing mailbox of the common names for it in many languages: so the Sent and Trash of a Maildir from
another server are found.

A mailbox that has one attribute gets no further one by its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, Literal

from attrs import frozen

from mailserver.errors import NoSpace
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.format.common_names import COMMON_NAMES
from mailserver.store.maildir.home.home import Home
from mailserver.types import MailboxId

FILE_NAME: Final = "mailserver-special-use"

_ABOVE = re.compile(r"^(?:inbox|\[gmail\]|\[google mail\])/")
"""Mailboxes below which other servers put the special ones."""


@frozen
class Holder:
    """The mailbox of an attribute."""

    name: str
    source: Literal["given", "configured", "usual name"]


def read(root: str) -> dict[MailboxId, frozenset[str]]:
    """Read the given attributes; none without a valid file. Raises: StoreUnavailable."""
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
    """Write the given attributes, durably. Raises: NoSpace, StoreUnavailable."""
    document = {guid.hex(): sorted(names) for guid, names in attributes.items() if names}
    safeio.replace(os.path.join(root, FILE_NAME), json.dumps(document, indent=1).encode("ascii"))


@frozen
class Given:
    """The given attributes, by mailboxes that exist."""

    attributes: Mapping[str, frozenset[str]]
    """By name. Of several mailboxes with one attribute the last has it."""
    guids: Mapping[str, MailboxId]
    """The GUIDs of the mailboxes to which any were given, by name."""
    missing: int
    """The number of mailboxes to which attributes were given, and which are not there."""


def given(
    home: Home, there: Collection[str], known: dict[MailboxId, frozenset[str]], guid_of: Callable[[str], MailboxId | None]
) -> Given:  # fmt: skip
    """Find the mailboxes that were given attributes. `known`: as `read` returns them.

    `guid_of` returns the GUID in a mailbox's uidlist. Those of other mailboxes do not matter: most are not even read.
    Raises: StoreUnavailable.
    """
    found: dict[MailboxId, str] = {}
    for guid in known:
        state = home.read(lambda index, guid=guid: index.mailboxes.by_guid(guid))  # type: ignore[misc]
        if state is not None and state.name in there and guid == guid_of(state.name):
            found[guid] = state.name
    if len(found) < len(known):
        # Another program has moved or removed it, or the index was lost.
        names = set(found.values())
        for name in there:
            there_now = guid_of(name) if name not in names else None
            if there_now is not None and there_now in known:
                found[there_now] = name
    taken: set[str] = set()
    by_name: dict[str, frozenset[str]] = {}
    for guid in reversed(known):
        if guid in found and (attributes := known[guid] - taken):
            by_name[found[guid]] = attributes
            taken |= attributes
    return Given(by_name, {name: guid for guid, name in found.items()}, len(known) - len(found))


def guid_of(home: Home, name: str) -> MailboxId | None:
    """Return the GUID of its uidlist."""
    try:
        header = uidlist.read_header(home.paths(name).uidlist)
    except FileNotFoundError:  # never seen by us, nor by Dovecot
        return None
    return None if header is None else header[1]


def set_special_use(home: Home, guid: MailboxId, attributes: frozenset[str]) -> None:
    """Give attributes to a mailbox of the index, and to no other. Drop mailboxes that are gone.

    Raises: NoSpace, StoreUnavailable.
    """
    known = read(home.root)
    alive = {state.guid for state in home.read(lambda index: index.mailboxes.all())}
    if known.keys() - alive:
        # A new index does not know all that is on disk.
        alive.update(filter(None, (guid_of(home, name) for name in home.layout.mailboxes())))
    kept = {each: uses - attributes for each, uses in known.items() if each in alive and each != guid}
    write(home.root, kept | {guid: attributes})


def unset(home: Home, attribute: str) -> None:
    """Take an attribute from the mailbox that was given it. Raises: NoSpace, StoreUnavailable."""
    write(home.root, {guid: uses - {attribute} for guid, uses in read(home.root).items()})


def forget(root: str, guid: MailboxId) -> None:
    """Drop a mailbox that is gone: LIST would look for it. Raises: StoreUnavailable."""
    known = read(root)
    if known.pop(guid, None):
        with contextlib.suppress(NoSpace):
            write(root, known)


def assign(
    mailboxes: Collection[str], given: Mapping[str, frozenset[str]], configured: Mapping[str, Sequence[str]]
) -> dict[str, Holder]:
    """Return the mailbox of each attribute that has one. `configured`: names by use, without its backslash."""
    found = {attribute: Holder(name, "given") for name, attributes in given.items() for attribute in attributes}
    if found.keys() >= {"\\" + use for use in (*configured, *COMMON_NAMES)}:
        return found
    taken = {holder.name for holder in found.values()}
    folded: dict[str, str] = {}
    for name in sorted(mailboxes):
        folded.setdefault(_folded(name), name)
    # Configured names for one use come before the common names of all others.
    for table, source in ((configured, "configured"), (COMMON_NAMES, "usual name")):
        for use, names in table.items():
            if "\\" + use in found:
                continue
            for name in _existing(names, mailboxes, folded):
                if name not in taken:
                    found["\\" + use] = Holder(name, source)  # type: ignore[arg-type]
                    taken.add(name)
                    break
    return found


def _existing(names: Sequence[str], mailboxes: Collection[str], folded: Mapping[str, str]) -> Iterator[str]:
    for name in names:
        there = name if name in mailboxes else folded.get(_folded(name))
        if there is not None:
            yield there


def _folded(name: str) -> str:
    """Fold a name: letter case, the encoding of accents and the mailbox above do not count."""
    return _ABOVE.sub("", unicodedata.normalize("NFC", name).casefold(), count=1)
