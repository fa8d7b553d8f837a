"""Messages that are prepared in memory, and wait for their publishing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailserver.store.memory.mailbox import MemoryMailbox
from mailserver.store.memory.messages import as_sent
from mailserver.store.receiving import Appended


class MemoryPrepared:
    """Messages that wait for `publish`."""

    def __init__(
        self, mailbox: MemoryMailbox, messages: Sequence[tuple[bytes, Iterable[str], int]], token: str = ""
    ) -> None:
        self.token = token
        self._mailbox = mailbox
        self._messages = messages
        self._appended: Appended | None = None
        self._aborted = False

    def publish(self) -> Appended:
        """Publish them. Repeated, it returns the same."""
        if self._aborted:
            raise ValueError("these messages have been aborted")
        if self._appended is None:
            uids = self._mailbox.add(self._messages)
            self._appended = Appended(self._mailbox.id, self._mailbox.uid_validity, uids)
        return self._appended

    def abort(self) -> None:
        """Drop them, unless published."""
        self._aborted = self._appended is None

    @property
    def waits(self) -> bool:
        """True until they are published or dropped."""
        return self._appended is None and not self._aborted

    @property
    def contents(self) -> list[bytes]:
        """The octets of each, as sent."""
        return [as_sent(data) for data, _flags, _date in self._messages]
