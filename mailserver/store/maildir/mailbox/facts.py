"""The facts of messages in a Maildir mailbox that the index keeps, and that are read from files where it lacks them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mailserver.message.summary import Summary
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.format.email_id import email_id
from mailserver.store.maildir.format.message_file import PlainFile
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox.preview_reader import kept_previews, make_previews
from mailserver.store.maildir.mailbox.save_dates import save_dates
from mailserver.store.maildir.mailbox.sort_keys import kept_sort_keys
from mailserver.store.maildir.mailbox.summary_reader import SummaryReader
from mailserver.store.rows import Row
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID

_MEASURED = 1000
"""Messages of unknown size that one call of `measure_rest` names."""


class MailboxFacts(ABC):
    """The part of a mailbox that answers from the index; `MaildirMailbox` is the whole."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @abstractmethod
    def _state(self) -> MailboxState:
        """Return the index's row of this mailbox. Raises: MailboxChanged."""

    @abstractmethod
    def open_message(self, uid: UID) -> PlainFile:
        """Open a message. Raises: MessageExpunged, StoreUnavailable."""

    @abstractmethod
    def read_whole(self, uids: Sequence[UID], limit: int) -> Sequence[tuple[UID, bytes]]:
        """Read the first of these messages, up to `limit` octets in all."""

    def summaries(
        self, uids: Sequence[UID], *, only_head: bool = False, time_slice: TimeSlice | None = None
    ) -> Sequence[tuple[UID, Row, Summary]]:  # fmt: skip
        """Return the pre-rendered facts of these messages, without messages that are gone or unreadable."""
        return self._rendering(self._state()).answer(sorted(set(uids)), only_head=only_head, time_slice=time_slice)

    def envelopes(self, uids: Sequence[UID], *, time_slice: TimeSlice | None = None) -> Mapping[UID, bytes]:
        """Return the ENVELOPE values that are kept."""
        key = self._state().key
        return self._home.read(lambda index: index.summaries.envelopes(key, sorted(uids), time_slice))

    def kept_lines(self, uids: Sequence[UID], *, time_slice: TimeSlice | None = None) -> Mapping[UID, bytes]:
        """Return the header lines that are kept."""
        key = self._state().key
        return self._home.read(lambda index: index.summaries.lines(key, sorted(uids), time_slice))

    def measure(
        self, uids: Sequence[UID], *, only_dates: bool = False, time_slice: TimeSlice | None = None
    ) -> Sequence[Row]:  # fmt: skip
        """Return rows with sizes and dates, read where unknown, without messages that are gone or unreadable."""
        state = self._state()
        wanted = sorted(set(uids))
        rows = self._home.read(lambda index: index.messages.rows_of(state.key, wanted))
        return self._rendering(state).complete(rows, only_dates=only_dates, time_slice=time_slice)

    def measure_rest(self, first: UID, time_slice: TimeSlice) -> UID | None:
        """Read and keep unknown sizes from that UID on. Return the UID to continue with, None at the end."""
        state = self._state()
        uids = self._home.read(lambda index: index.messages.unmeasured(state.key, first, _MEASURED))
        measured = self._rendering(state).measure(uids, time_slice)
        if time_slice.full:
            return UID(measured[-1][0] + 1)
        return UID(uids[-1] + 1) if len(uids) == _MEASURED else None

    def sort_keys(self, uids: Sequence[UID], names: Sequence[str]) -> Sequence[tuple[Any, ...]]:
        """Return kept sort keys, made where missing, without messages that are gone or unreadable."""
        state = self._state()
        return kept_sort_keys(self._home, state, self._rendering(state), sorted(uids), names)

    def save_dates(self, uids: Sequence[UID]) -> Mapping[UID, int]:
        """Return the save dates, from the names of the files."""
        state = self._state()
        wanted = sorted(set(uids))
        names = self._home.read(lambda index: index.messages.names_of(state.key, wanted))
        return save_dates(names, lambda others: self.measure(others, only_dates=True))

    def email_ids(self, uids: Sequence[UID]) -> Mapping[UID, str]:
        """Return the identifiers of the messages' content, from the names of the files."""
        state = self._state()
        names = self._home.read(lambda index: index.messages.names_of(state.key, sorted(set(uids))))
        return {uid: email_id(name.partition(b":")[0]) for uid, _place, name in names}

    def previews(
        self, uids: Sequence[UID], *, only_kept: bool = False, time_slice: TimeSlice | None = None
    ) -> Mapping[UID, str | None]:
        """Return the previews that are kept; others are made, and kept, unless `only_kept`."""
        state = self._state()
        wanted = sorted(set(uids))
        if only_kept:
            return kept_previews(self._home, state, wanted)
        return make_previews(self._home, state, self, wanted, time_slice)

    def _rendering(self, state: MailboxState) -> SummaryReader:
        return SummaryReader(self._home, state, self.open_message)
