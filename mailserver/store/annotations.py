"""Annotations of mailboxes and accounts: entries with octets as values (RFC 5464 3). Entry names are in lower case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from mailserver.errors import TooManyAnnotations
from mailserver.types import MailboxId

Annotations = Mapping[str, bytes]


@frozen
class AnnotationChange:
    """A change of the annotations of one mailbox, or of the account."""

    mailbox: MailboxId | None
    """None: those of the account."""
    entries: Sequence[str]
    """The names of the entries that have another value now, or none any more; sorted."""


def merge(known: Annotations, changes: Mapping[str, bytes | None], most: int) -> tuple[Annotations, Sequence[str]]:
    """Return the annotations after the changes, and the names of the entries that differ. None removes an entry.

    Raises: TooManyAnnotations if there are more entries than before, and more than `most`.
    """
    merged = {name: value for name, value in {**known, **changes}.items() if value is not None}
    if len(merged) > max(most, len(known)):
        raise TooManyAnnotations
    return merged, sorted(name for name in changes if merged.get(name) != known.get(name))
