"""The facts of a Maildir mailbox for SEARCH: from the index, else from the files.

A search runs for seconds while others use the account. So the mailbox's state is read anew each time: the index may
have been made anew meanwhile, with other keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from mailserver.store.index.database import Index
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.format.message_file import PlainFile
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.mailbox.summary_reader import SummaryReader
from mailserver.store.maildir.sync.directory_update import known_mask
from mailserver.store.rows import Row
from mailserver.store.search_source import Indexed, SentWithin, TextsWith, Where
from mailserver.types import UID


class MaildirSearchSource:
    """Implements `store.search_source.SearchSource`."""

    def __init__(
        self,
        home: Home,
        state: Callable[[], MailboxState],
        open_message: Callable[[UID], PlainFile],
        contents: Callable[[Sequence[UID]], Iterator[tuple[UID, bytes | None]]],
        *,
        save_dates: Callable[[Sequence[UID]], Mapping[UID, int]],
        email_ids: Callable[[Sequence[UID]], Mapping[UID, str]],
    ) -> None:
        """`state`, `open_message`, `contents`, `save_dates` and `email_ids` are the mailbox's."""
        self._home = home
        self._state = state
        self._open_message = open_message
        self._contents = contents
        self.save_dates = save_dates
        self.email_ids = email_ids

    def rows(self, uids: Sequence[UID]) -> list[Row]:
        """Return what the index knows of these messages."""
        key = self._state().key
        return self._home.read(lambda index: index.messages.rows_of(key, sorted(uids)))

    def measure(self, uids: Sequence[UID], *, only_dates: bool) -> None:
        """Find and index their sizes and dates, or their dates alone."""
        rendering = self._rendering()
        (rendering.dates if only_dates else rendering.measure)(sorted(uids))

    def flag_mask(self, name: str) -> int:
        """Return the bit of a flag."""
        return known_mask(self._state(), [name])

    def summaries(
        self, uids: Sequence[UID], names: Collection[str] | None
    ) -> Iterator[tuple[UID, str, int | None]]:  # fmt: skip
        """Return header texts and sent days, made where missing."""
        key = self._state().key
        wanted = sorted(uids)
        known = self._home.read(lambda index: index.header_texts.get(key, wanted))
        yield from known
        there = {uid for uid, _text, _sent in known}
        missing = [uid for uid in wanted if uid not in there] if there else wanted
        if names and missing:
            known_fields = self._home.read(lambda index: index.field_texts.get(key, missing, names))
            yield from [(uid, text, None) for uid, text in known_fields]
            there = {uid for uid, _text in known_fields}
            missing = [uid for uid in missing if uid not in there] if there else missing
        yield from self._rendering().texts(missing, names)

    def texts_with(self, uids: Sequence[UID], needles: Sequence[str], names: Collection[str] | None) -> TextsWith:
        """Return kept header texts that may have a needle."""
        key = self._state().key
        wanted = sorted(uids)

        def find(index: Index) -> TextsWith:
            hits, missing = index.header_texts.find_needles(key, wanted, needles)
            if missing and names:
                more, missing = index.field_texts.find_needles(key, missing, needles, names)
                hits += more
            return TextsWith(hits, missing)

        return self._home.read(find)

    def sent_within(self, uids: Sequence[UID], first: int | None, end: int | None) -> SentWithin:
        """Return the messages whose kept Date field is within these days."""
        key = self._state().key
        wanted = sorted(uids)
        return SentWithin(*self._home.read(lambda index: index.header_texts.sent_within(key, wanted, first, end)))

    def sources(self, uids: Sequence[UID]) -> Iterator[tuple[UID, bytes | None]]:
        """Yield the messages as sent."""
        return self._contents(uids)

    def indexed(self, uids: Sequence[UID], needle: str, where: Where) -> Indexed | None:
        """Ask the text index."""
        text_index = self._home.text_index
        return None if text_index is None else text_index.look_up(self._state(), uids, needle, where)

    def present(self, uids: Sequence[UID]) -> list[UID]:
        """Return the messages (rising) that exist."""
        key = self._state().key
        return self._home.read(lambda index: index.messages.present(key, uids))

    def _rendering(self) -> SummaryReader:
        return SummaryReader(self._home, self._state(), self._open_message)
