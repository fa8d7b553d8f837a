"""The quota of a user in its line of a users file, by the extra fields of Dovecot 2.4 (no I/O).

    userdb_quota_storage_size=10G      userdb_quota_message_count=100000      userdb_quota_mailbox_count=500

Octets may have a unit of 1024 (k, M, G, T). 0 and `unlimited` stand for no limit, whatever the configuration says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mailserver.auth.schemes.passwd import PasswdEntry
from mailserver.config.values import parse_size
from mailserver.types import UNLIMITED, Quota

STORAGE: Final = "userdb_quota_storage_size"
MESSAGES: Final = "userdb_quota_message_count"
MAILBOXES: Final = "userdb_quota_mailbox_count"
FIELDS: Final = frozenset({STORAGE, MESSAGES, MAILBOXES})
"""Names of the extra fields."""


def quota_of(entry: PasswdEntry) -> Quota:
    """Return the limits of a user; None where the line has no valid one."""
    return Quota(*(_limit(name, entry.extra.get(name)) for name in (STORAGE, MESSAGES, MAILBOXES)))


def quota_faults(entry: PasswdEntry) -> Iterator[tuple[str, str]]:
    """Yield the fields that are no limits, with the reason."""
    for name in (STORAGE, MESSAGES, MAILBOXES):
        text = entry.extra.get(name)
        if text is not None and _limit(name, text) is None:
            right = 'octets with a unit or none, such as 10G, or "unlimited"' if name == STORAGE else "a number"
            yield f"{name}={text[:40]}", f"must be {right}: without that, the limit of the configuration holds"


def _limit(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if name == STORAGE or text.lower() == "unlimited":
        number = parse_size(text)
    else:
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
    return min(number or UNLIMITED, UNLIMITED) if number is not None else None
