"""The facts of a mailbox that SEARCH asks for, by price."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import frozen

from mailserver.store.rows import Row
from mailserver.types import UID


@frozen
class TextsWith:
    """Result of `SearchSource.texts_with`. All other messages exist and have none of the needles."""

    hits: Sequence[tuple[UID, str]] = ()
    """(uid, HeaderText.text) of messages that may have a needle, INCOMPLETE ones among them."""
    open: Sequence[UID] = ()
    """Messages that were not examined."""


@frozen
class SentWithin:
    """Result of `SearchSource.sent_within`. The Date fields of all other messages are of other days or of none."""

    hits: Sequence[UID] = ()
    """Messages of these days."""
    open: Sequence[UID] = ()
    """Messages that were not examined."""


class Where(enum.Enum):
    """The texts of a message in which a needle is searched for (see `message.text.MessageText`)."""

    HEADER = "header"
    BODY = "body"
    ANYWHERE = "anywhere"
    """Header, body, or the headers of parts."""


@frozen
class Indexed:
    """Result of a text index. All messages but these two kinds do not have the needle."""

    hits: Sequence[UID] = ()
    """Messages that may have the needle."""
    open: Sequence[UID] = ()
    """Messages that are not indexed."""


class SearchSource(Protocol):
    """The facts of one mailbox, by price. Each method is called for as few messages as possible."""

    def rows(self, uids: Sequence[UID]) -> Iterable[Row]:
        """Return the indexed facts of these messages, in any order, without messages that are gone."""

    def measure(self, uids: Sequence[UID], *, only_dates: bool) -> None:
        """Find the sizes and dates (or dates alone) that `rows` did not know. Afterwards it knows them."""

    def save_dates(self, uids: Sequence[UID]) -> Mapping[UID, int]:
        """Return the save dates of these messages, as `Mailbox.save_dates`."""

    def email_ids(self, uids: Sequence[UID]) -> Mapping[UID, str]:
        """Return the identifiers of these messages' content, as `Mailbox.email_ids`."""

    def flag_mask(self, name: str) -> int:
        """Return the bit of a system flag or keyword (any case); 0 if the mailbox has no such keyword."""

    def summaries(
        self, uids: Sequence[UID], names: Collection[str] | None
    ) -> Iterable[tuple[UID, str, int | None]]:  # fmt: skip
        """Return (uid, HeaderText.text, HeaderText.sent) in any order, rendered and kept where missing.

        `names`: the kept fields that the search needs; the texts may be of these alone, and without a day. Messages that
        are gone are left out.
        """

    def texts_with(self, uids: Sequence[UID], needles: Sequence[str], names: Collection[str] | None) -> TextsWith:
        """Find needles in kept texts like those of `summaries`. A source that is slow at it leaves all to that."""

    def sent_within(self, uids: Sequence[UID], first: int | None, end: int | None) -> SentWithin:
        """Compare kept HeaderText.sent days, as `query.Sent` says. A source may leave all to `summaries`."""

    def sources(self, uids: Sequence[UID]) -> Iterable[tuple[UID, bytes | None]]:
        """Yield the messages as sent, in the given order, without those that are gone. Not all are held at once.

        None in place of the octets: other searches hold too much memory now; the same message comes again.
        """

    def indexed(self, uids: Sequence[UID], needle: str, where: Where) -> Indexed | None:
        """Ask the text index; None if it is missing or cannot tell. The needle is folded, not empty."""

    def present(self, uids: Sequence[UID]) -> Sequence[UID]:
        """Return the messages (rising) that still exist, rising."""
