"""The contract, on the account in memory."""

from __future__ import annotations

import pytest

from mailserver.message.render import summarise
from mailserver.store.memory import MemoryStore
from tests.store.contract import StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def make_store(self):
        store = MemoryStore(summarise)
        made = {}

        def make(**options):
            return made.setdefault(str(options), MemoryStore(summarise, **options)) if options else store

        return make
