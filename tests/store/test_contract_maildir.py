"""The contract, on the Maildir store."""

from __future__ import annotations

import pytest

from tests.store.contract import StoreContract
from tests.store.disk import open_store


class TestMaildir(StoreContract):
    @pytest.fixture
    def make_store(self, tmp_path):
        return lambda **options: open_store(str(tmp_path / "mail"), **options)
