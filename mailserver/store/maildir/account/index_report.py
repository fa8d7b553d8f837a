"""A report on the indexes of an account, for the administrator. It reads the files as they are, and makes none."""

from __future__ import annotations

import os
from collections.abc import Sequence

import apsw
from attrs import frozen

from mailserver.store.index import schema
from mailserver.store.index.database import Index
from mailserver.store.index.fulltext import FullText
from mailserver.store.maildir.account.text_index import FILE_NAME
from mailserver.store.maildir.home.home import INDEX_NAME
from mailserver.types import MailboxId


@frozen
class MailboxReport:
    """One mailbox of the index."""

    name: str
    messages: int
    indexed: int | None
    """Messages in the text index; None if its text has not been searched yet."""


@frozen
class Report:
    """Both indexes of an account."""

    index: int
    """Octets of the index's files."""
    text_index: int
    """Octets of the text index's files."""
    mailboxes: Sequence[MailboxReport]
    """By name. Mailboxes that no session has opened may be missing."""


def report(root: str) -> Report:
    """Report on the account in that directory. A missing or unreadable index has nothing."""
    path, text_path = os.path.join(root, INDEX_NAME), os.path.join(root, FILE_NAME)
    indexed = _indexed(text_path)
    mailboxes: list[MailboxReport] = []
    try:
        index = Index.open(path)
        if index is not None:
            try:
                mailboxes = [
                    MailboxReport(state.name, index.messages.counts(state.key)[0], indexed.get(state.guid))
                    for state in index.mailboxes.all()
                ]
            finally:
                index.close()
    except (apsw.Error, OSError):
        mailboxes = []
    return Report(_size(path), _size(text_path), sorted(mailboxes, key=lambda each: each.name))


def _indexed(path: str) -> dict[MailboxId, int]:
    try:
        text_index = FullText.open(path)
        try:
            return {row[1]: text_index.indexed(row[0]) for row in text_index.mailboxes()}
        finally:
            text_index.close()
    except (apsw.Error, schema.NotOurs, OSError):
        return {}


def _size(path: str) -> int:
    return sum(os.stat(name).st_size for name in (path, f"{path}-wal") if os.path.isfile(name))
