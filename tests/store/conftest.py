"""What holds in all tests of the store."""

from __future__ import annotations

import pytest

from mailserver.store.maildir.format import uidlist
from tests.store.lists import watched_rewrite


@pytest.fixture(autouse=True)
def _no_line_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of messages that are there, whenever a list is written anew."""
    monkeypatch.setattr(uidlist, "rewrite", watched_rewrite)
