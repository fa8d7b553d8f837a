"""Accounts in memory where there is a disk of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailserver.store.maildir.account import text_index
from mailserver.store.maildir.account.account import MaildirAccount
from tests.store.disk import USER, open_store, scratch


@pytest.fixture(autouse=True)
def worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each searched mailbox is worth an index, however small."""
    monkeypatch.setattr(text_index, "WORTH", 1)


@pytest.fixture
def root() -> Iterator[str]:
    with scratch() as directory:
        yield directory


@pytest.fixture
def account(root: str) -> Iterator[MaildirAccount]:
    account = open_store(root).account(USER)
    yield account
    account.close()
