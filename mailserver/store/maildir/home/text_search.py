"""The text index as `home` and `mailbox` use it: an interface that `account.text_index` implements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mailserver.store.index.records import MailboxState
from mailserver.store.search_source import Indexed, Where
from mailserver.types import UID


class TextSearch(Protocol):
    """An optional index of message texts. Its methods may be called under the account's lock."""

    in_use: bool

    def look_up(self, state: MailboxState, uids: Sequence[UID], needle: str, where: Where) -> Indexed | None:
        """The messages of `uids` whose text may contain `needle`, or None where the index cannot say."""

    def work(self, stop: Callable[[], bool]) -> float | None:
        """Index for a while. Returns the seconds to wait before the next call, None if nothing is left."""

    def close(self) -> None:
        """Close the file. A later call opens it again."""
