"""Searches in an account whose texts are indexed, and by reading its messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mailserver.store.maildir.account import text_index
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.account.index_report import report
from mailserver.store.maildir.mailbox.mailbox import MaildirMailbox
from mailserver.store.query import Query
from mailserver.types import UID
from tests.store.samples import uids

WORDS = (
    "apple",
    "Banana",
    "straße",
    "STRASSE",
    "ınput",
    "İnput",
    "a\u0301pple",
    "áPPLE",
    "ﬃne",
    "日本語",
    "ab",
    "x" * 40,
)

NEEDLES = (
    "apple",
    "ana",
    "strasse",
    "traß",
    "input",
    "áp",
    "áppl",
    "ffin",
    "日本",
    "日本語",
    "ab",
    "e b",
    "xxxx",
    "\n",
    "subject",
    "odd",
    "zzz",
)


def build(account: MaildirAccount, slices: int = 10_000) -> float | None:
    """Do all of the work, or so many slices of it."""
    pause: float | None = text_index.NOW
    for _ in range(slices):
        pause = account.maintain(lambda: False)
        if pause is None or pause > text_index.NOW:
            break
    return pause


def search(account: MaildirAccount, query: Query, name: str = "INBOX") -> list[int]:
    mailbox = account.mailbox(name)
    mailbox.refresh()
    return list(mailbox.search(query, [UID(uid) for uid in uids(mailbox)]))


def read(account: MaildirAccount, query: Query, name: str = "INBOX") -> list[int]:
    """The same without the index."""
    home = account._home
    index, home.text_index = home.text_index, None
    try:
        return search(account, query, name)
    finally:
        home.text_index = index


class Opened:
    """Counts the messages that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uids: list[int] = []
        for name in ("all_contents", "searched_contents"):
            monkeypatch.setattr(MaildirMailbox, name, self._recorded(getattr(MaildirMailbox, name)))

    def _recorded(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def contents(mailbox: MaildirMailbox, some: list[int]) -> Any:
            self.uids += some
            return original(mailbox, some)

        return contents

    def take(self) -> list[int]:
        taken, self.uids = self.uids, []
        return taken


def indexed(account: MaildirAccount) -> list[int]:
    return [mailbox.indexed for mailbox in report(account.root).mailboxes if mailbox.indexed is not None]
