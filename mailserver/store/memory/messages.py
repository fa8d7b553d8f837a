"""Messages of the memory store: one being received, one that is kept, one that is open; and what SEARCH asks of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, frozen

from mailserver.message.summary import Summary
from mailserver.store.receiving import StagedMessage
from mailserver.store.rows import Row
from mailserver.store.search_source import SentWithin, TextsWith, Where
from mailserver.types import UID, ModSeq


@define
class MemoryStaged:
    """A message being received."""

    data: bytearray | None = None
    size: int = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        if self.data is None:
            raise ValueError("this staged message has been used or aborted")
        self.data += data
        self.size += len(data)

    def copy(self, descriptor: int, offset: int, count: int) -> None:
        """Append those octets of an open file."""
        self.write(os.pread(descriptor, count, offset))

    def abort(self) -> None:
        """Forget it. Harmless after use and when repeated."""
        self.data = None


class MemoryMessage:
    """An open message."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Those octets, fewer at the end."""
        return self._data[offset:] if count is None else self._data[offset : offset + count]

    def read_now(self, offset: int, count: int) -> bytes | None:  # noqa: ARG002 - as in the interface
        """None: whoever uses the model goes the longer way."""
        return None

    def close(self) -> None:
        """Nothing to give back."""


def content(staged: StagedMessage) -> bytes:
    """What was received. Raises: ValueError for one that is not of this store, or used already."""
    if not isinstance(staged, MemoryStaged) or staged.data is None:
        raise ValueError("not a message staged here, or used already")
    return bytes(staged.data)


@frozen
class KeptMessage:
    """One message: its bytes as sent, its flags by mask, when it changed last."""

    data: bytes
    flags: int
    modseq: ModSeq
    date: int

    def row(self, uid: UID) -> Row:
        """The facts under that UID."""
        return Row(uid, self.flags, self.modseq, len(self.data), self.date)


@frozen
class MemorySearchSource:
    """What SEARCH asks of a mailbox. Implements `store.search_source.SearchSource`."""

    messages: Mapping[UID, KeptMessage]
    mask: Callable[[str], int]
    summarise: Callable[[bytes], Summary]

    def rows(self, uids: Iterable[UID]) -> Iterable[Row]:
        """Their facts; messages gone are left out."""
        return [self.messages[uid].row(uid) for uid in uids if uid in self.messages]

    def measure(self, uids: Sequence[UID], *, only_dates: bool) -> None:
        """Sizes and dates are always known."""

    def flag_mask(self, name: str) -> int:
        """The bit of a flag, 0 for a keyword that the mailbox does not have."""
        return self.mask(name)

    def summaries(self, uids: Iterable[UID]) -> Iterable[tuple[UID, str, int | None]]:
        """The lines that are searched, and the time of Date; messages gone are left out."""
        for uid in uids:
            if uid in self.messages:
                summary = self.summarise(self.messages[uid].data)
                yield uid, summary.search, summary.sent

    def texts_with(self, uids: Sequence[UID], needles: Sequence[str]) -> TextsWith:  # noqa: ARG002 - nothing is kept
        """None is known before it is read."""
        return TextsWith(open=uids)

    def sent_within(self, uids: Sequence[UID], first: int | None, end: int | None) -> SentWithin:  # noqa: ARG002 - as above
        """None is known before it is read."""
        return SentWithin(open=uids)

    def indexed(self, uids: Sequence[UID], needle: str, where: Where) -> None:  # noqa: ARG002 - there is none
        """None: there is no index."""
        return

    def present(self, uids: Sequence[UID]) -> Sequence[UID]:
        """Those that are still there."""
        return [uid for uid in uids if uid in self.messages]

    def sources(self, uids: Iterable[UID]) -> Iterable[tuple[UID, bytes]]:
        """The octets; messages gone are left out."""
        return [(uid, self.messages[uid].data) for uid in uids if uid in self.messages]
