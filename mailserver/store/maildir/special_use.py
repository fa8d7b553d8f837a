"""Special-use attributes of mailboxes (RFC 6154), kept by GUID, so that they follow a rename.

An attribute that no mailbox has been given belongs to the first existing mailbox with a usual name for it: so the Sent
and Trash of a Maildir that came from another server are found.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Final

from mailserver.store.maildir import safeio
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


def assign(
    mailboxes: Collection[str], given: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:  # fmt: skip
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
