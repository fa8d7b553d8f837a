"""What SEARCH asks of a mailbox: facts, by price."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Protocol

from attrs import frozen

from mailserver.store.rows import Row
from mailserver.types import UID


@frozen
class TextsWith:
    """What `SearchSource.texts_with` found; all other messages are there, and have none of the needles."""

    hits: Sequence[tuple[UID, str]] = ()
    """(uid, Summary.search) of those that may have a needle, INCOMPLETE ones among them."""
    open: Sequence[UID] = ()
    """Those that were not looked at."""


@frozen
class SentWithin:
    """What `SearchSource.sent_within` found; the Date fields of all other messages are of other days, or of none."""

    hits: Sequence[UID] = ()
    """Those of these days."""
    open: Sequence[UID] = ()
    """Those that were not looked at."""


class Where(enum.Enum):
    """In which texts of a message a needle is looked for (see `message.text.MessageText`)."""

    HEADER = "header"
    BODY = "body"
    ANYWHERE = "anywhere"
    """Header, body, or the headers of parts."""


@frozen
class Indexed:
    """What a text index says of some messages; all but these two kinds plainly do not have the needle."""

    hits: Sequence[UID] = ()
    """Those that may have it."""
    open: Sequence[UID] = ()
    """Those that are not indexed."""


class SearchSource(Protocol):
    """The facts of one mailbox, by price. Each call is made for as few messages as possible."""

    def rows(self, uids: Sequence[UID]) -> Iterable[Row]:
        """What the index knows of these, in any order; messages gone are left out."""

    def measure(self, uids: Sequence[UID], *, only_dates: bool) -> None:
        """Find out sizes and dates of these that `rows` did not know, or dates alone: it knows them then."""

    def flag_mask(self, name: str) -> int:
        """The bit of a system flag or keyword (any case); 0 if the mailbox has no such keyword."""

    def summaries(self, uids: Sequence[UID]) -> Iterable[tuple[UID, str, int | None]]:
        """(uid, Summary.search, Summary.sent) in any order, made and kept where missing.

        Messages gone are left out.
        """

    def texts_with(self, uids: Sequence[UID], needles: Sequence[str]) -> TextsWith:
        """Find needles in Summary.search where it is kept. A source that cannot do that fast leaves all to `summaries`."""

    def sent_within(self, uids: Sequence[UID], first: int | None, end: int | None) -> SentWithin:
        """Judge Summary.sent as `query.Sent` says, where it is kept. A source may leave all to `summaries`."""

    def sources(self, uids: Sequence[UID]) -> Iterable[tuple[UID, bytes | None]]:
        """The messages as sent, in the order given; those gone are left out. Lazy: not all are held at once.

        None in place of the octets: others hold too much memory now, and the same message comes again.
        """

    def indexed(self, uids: Sequence[UID], needle: str, where: Where) -> Indexed | None:
        """What the text index knows; None if there is none, or none that can tell. The needle is folded, not empty."""

    def present(self, uids: Sequence[UID]) -> Sequence[UID]:
        """Those of the messages (rising) that are there, rising."""
