"""A table of decisions in memory, and filers that plan what a test wants."""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.filing.interfaces import FilingRecipient, Plan, Source
from mailserver.queue.model import TokenRefused


class FakeDecisions:
    """Implements `CopyDecisions`, and has what a store asks."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.committed: list[str] = []
        self.refused: set[str] = set()
        self.forgotten: list[str] = []
        self.is_ready = False

    def decided(self, token: str) -> bool:
        if token not in self.committed:
            self.refused.add(token)
        return token in self.committed

    def forget(self, tokens: Sequence[str]) -> None:
        self.forgotten += tokens
        self.committed = [token for token in self.committed if token not in tokens]

    def get_ready(self) -> None:
        self.is_ready = True

    def decide(self, token: str) -> None:
        assert self.is_ready
        if self.failure is not None:
            raise self.failure
        if token in self.refused:
            raise TokenRefused
        self.committed.append(token)


class FakeFiler:
    """Plans the same for all, and remembers what it was asked for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.asked: list[tuple[FilingRecipient, bytes]] = []

    def plan(self, message: Source, recipient: FilingRecipient) -> Plan:
        self.asked.append((recipient, message.read(0, message.size)))
        return self._plan
