"""One account, and INBOX of it selected."""

from __future__ import annotations

import pytest

from mailserver.store.memory import MemoryAccount
from tests.store.live.world import USER, World
from tests.store.samples import message, staged


@pytest.fixture
def world():
    return World()


@pytest.fixture
def memory(world) -> MemoryAccount:
    """The blocking side, as another process would use it."""
    return world.store.account(USER)


@pytest.fixture
def account(world):
    return world.account()


@pytest.fixture
def live(world, memory, account):
    """INBOX with three messages, selected."""
    memory.append("INBOX", [staged(memory, message(str(n))) for n in range(3)])
    return world.do(account.select("INBOX"))
