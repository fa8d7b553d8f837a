"""Messages of the memory store: received, stored and open ones; and the facts for SEARCH."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from attrs import define, frozen

from mailserver.message.header_summary import HeaderSummary
from mailserver.store.receiving import StagedMessage
from mailserver.store.rows import Row
from mailserver.store.search_source import SentWithin, TextsWith, Where
from mailserver.types import UID, ModSeq

_BARE_LF = re.compile(rb"(?<!\r)\n")


@define
class MemoryStaged:
    """A message that is being received."""

    data: bytearray | None = None
    size: int = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        if self.data is None:
            raise ValueError("this staged message has been used or aborted")
        self.data += data
        self.size += len(data)

    def copy(self, descriptor: int, offset: int, count: int) -> None:
        """Append octets of an open file."""
        self.write(os.pread(descriptor, count, offset))

    def content(self) -> bytes:
        """Return all octets so far."""
        return content(self)

    def finish(self, date: int | None) -> None:
        """Do nothing, as nothing is open."""

    def abort(self) -> None:
        """Drop it. Harmless after use and when repeated."""
        self.data = None


class MemoryMessage:
    """An open message."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Read these octets; fewer at the end."""
        return self._data[offset:] if count is None else self._data[offset : offset + count]

    def read_now(self, offset: int, count: int) -> bytes | None:  # noqa: ARG002 - as in the interface
        """Return None: users of the model take the longer way."""
        return None

    def close(self) -> None:
        """Do nothing, as nothing is open."""


def content(staged: StagedMessage) -> bytes:
    """Return the received octets. Raises: ValueError for a message of another store, or one that was used already."""
    if not isinstance(staged, MemoryStaged) or staged.data is None:
        raise ValueError("not a message staged here, or used already")
    return bytes(staged.data)


def as_sent(data: bytes) -> bytes:
    """Return the octets with CRLF line ends."""
    return _BARE_LF.sub(b"\r\n", bytes(data))


@frozen
class KeptMessage:
    """A stored message: its bytes as sent, its flags by mask, and its last change."""

    data: bytes
    flags: int
    modseq: ModSeq
    date: int
    saved: int
    """When it came into its mailbox, in seconds since 1970."""
    email_id: str
    """The identifier of its content."""

    def row(self, uid: UID) -> Row:
        """Return its row under that UID."""
        return Row(uid, self.flags, self.modseq, len(self.data), self.date)


@frozen
class MemorySearchSource:
    """The facts for SEARCH. Implements `store.search_source.SearchSource`."""

    messages: Mapping[UID, KeptMessage]
    mask: Callable[[str], int]

    def rows(self, uids: Iterable[UID]) -> Iterable[Row]:
        """Return the rows, without messages that are gone."""
        return [self.messages[uid].row(uid) for uid in uids if uid in self.messages]

    def measure(self, uids: Sequence[UID], *, only_dates: bool) -> None:
        """Do nothing, as sizes and dates are always known."""

    def save_dates(self, uids: Sequence[UID]) -> Mapping[UID, int]:
        """Return the save dates, without messages that are gone."""
        return {uid: self.messages[uid].saved for uid in uids if uid in self.messages}

    def email_ids(self, uids: Sequence[UID]) -> Mapping[UID, str]:
        """Return the identifiers of the messages' content, without messages that are gone."""
        return {uid: self.messages[uid].email_id for uid in uids if uid in self.messages}

    def flag_mask(self, name: str) -> int:
        """Return the bit of a flag, 0 for a keyword that the mailbox does not have."""
        return self.mask(name)

    def summaries(
        self, uids: Iterable[UID], names: Collection[str] | None  # noqa: ARG002 - all are at hand
    ) -> Iterable[tuple[UID, str, int | None]]:  # fmt: skip
        """Return header text and sent day, without messages that are gone."""
        for uid in uids:
            if uid in self.messages:
                yield uid, *HeaderSummary.of_message(self.messages[uid].data).text()

    def texts_with(
        self, uids: Sequence[UID], needles: Sequence[str], names: Collection[str] | None  # noqa: ARG002 - nothing is kept
    ) -> TextsWith:  # fmt: skip
        """Leave all to `summaries`."""
        return TextsWith(open=uids)

    def sent_within(self, uids: Sequence[UID], first: int | None, end: int | None) -> SentWithin:  # noqa: ARG002 - as above
        """Leave all to `summaries`."""
        return SentWithin(open=uids)

    def indexed(self, uids: Sequence[UID], needle: str, where: Where) -> None:  # noqa: ARG002 - there is none
        """Return None: there is no text index."""
        return

    def present(self, uids: Sequence[UID]) -> Sequence[UID]:
        """Return the messages that exist."""
        return [uid for uid in uids if uid in self.messages]

    def sources(self, uids: Iterable[UID]) -> Iterable[tuple[UID, bytes]]:
        """Yield the octets, without messages that are gone."""
        return [(uid, self.messages[uid].data) for uid in uids if uid in self.messages]
