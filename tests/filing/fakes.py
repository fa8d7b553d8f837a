"""A table of decisions in memory, and filers that plan what a test wants."""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.filing.interfaces import FilingRecipient, Plan, Source
from mailserver.queue.interfaces import Content, Spooled
from mailserver.queue.model import Envelope, Target, TokenRefused


class FakeDecisions:
    """Implements `queue.interfaces.Acceptances` as far as copies here need it."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.committed: list[str] = []
        self.refused: set[str] = set()
        self.forgotten: list[str] = []

    def decided(self, token: str) -> bool:
        if token not in self.committed:
            self.refused.add(token)
        return token in self.committed

    def forget(self, tokens: Sequence[str]) -> None:
        self.forgotten += tokens
        self.committed = [token for token in self.committed if token not in tokens]

    def accept(self, spooled: Sequence[Spooled], token: str = "", *, sent: Sequence[tuple[str, int]] = ()) -> None:
        assert token
        assert not spooled
        assert not sent
        if self.failure is not None:
            raise self.failure
        if token in self.refused:
            raise TokenRefused
        self.committed.append(token)

    def check_space(self, size: int) -> None:
        raise NotImplementedError

    def write(self, envelope: Envelope, targets: Sequence[Target], content: Content) -> Spooled:
        raise NotImplementedError

    def discard(self, spooled: Spooled) -> None:
        raise NotImplementedError

    def sent(self, user: str, since: int) -> int:
        raise NotImplementedError


class FakeFiler:
    """Plans the same for all, and remembers what it was asked for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.asked: list[tuple[FilingRecipient, bytes]] = []

    def plan(self, message: Source, recipient: FilingRecipient) -> Plan:
        self.asked.append((recipient, message.read(0, message.size)))
        return self._plan
