"""The state of parsing search keys: limits, charset, filters, and the mailbox that they are about. `keys` has the keys."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from attrs import Factory, define, field

from mailserver.errors import BadSyntax, LimitReached
from mailserver.imap.search.filters import NO_FILTERS, Filters
from mailserver.imap.search.fuzzy import fuzzy_key, words_of
from mailserver.imap.search.scope import PerMailbox
from mailserver.imap.session import Session
from mailserver.imap.uidonly import refuse_numbers
from mailserver.imap.wire.reader import Reader
from mailserver.store.columns import Columns
from mailserver.store.query import InUIDs, Query
from mailserver.store.rows import Snapshot
from mailserver.store.view import View
from mailserver.types import UID, ModSeq, UIDValidity

MAX_KEYS: Final = 1000
LONGEST_TEXT: Final = 8192
"""Octets of one search string."""
_NO_MESSAGES: Final = View(Columns(Snapshot.of((), ModSeq(1), (), UID(1), UIDValidity(1))))


@define
class CriteriaParser:
    """The state of parsing search keys; by itself without a mailbox, to check them."""

    reader: Reader
    codec: str = field(default="utf-8", kw_only=True)
    """Without CHARSET: US-ASCII, and UTF-8 from clients that leave it out, as RFC 9051 6.4.4 allows."""
    keys: int = field(default=0, kw_only=True)
    depth: int = field(default=0, kw_only=True)
    follows: bool = field(default=False, kw_only=True)
    """The result is kept up to date (RFC 5267): `n:*` in a set of UIDs takes in new messages."""
    not_followed: str = field(default="", kw_only=True)
    """The reason why the result cannot be kept up to date: a key depends on more than messages and their flags."""
    in_fuzzy: bool = field(default=False, kw_only=True)
    """The key is within FUZZY (RFC 6203)."""
    is_fuzzy: bool = field(default=False, kw_only=True)
    """There is a FUZZY key."""
    filters: Filters | None = field(default=None, kw_only=True)
    """None: the names of filters are read, but not looked up."""
    pending: list[Query] = field(default=Factory(list), kw_only=True)
    """The further keys of a filter, which come next."""
    _shared: dict[str, InUIDs] = field(factory=dict, init=False)

    def in_mailbox(self, find: Callable[[View], InUIDs]) -> InUIDs:
        """The UIDs that a key means in the mailbox that is searched, by its view."""
        return find(_NO_MESSAGES)

    def shared(self, name: str, find: Callable[[View], InUIDs]) -> InUIDs:
        """As `in_mailbox`, one key for all places at which that name stands: it may be very many ranges."""
        if name not in self._shared:
            self._shared[name] = self.in_mailbox(lru_cache(maxsize=1)(find))
        return self._shared[name]

    def is_selected(self, _view: View) -> bool:
        """Is it the view of the selected mailbox?"""
        return False

    @property
    def saved_result(self) -> array[int]:
        """The UIDs that `$` stands for in the selected mailbox."""
        return array("I")

    def refuse_numbers(self) -> None:
        """Refuse message numbers where the session has none. Raises: UIDRequired."""

    def text(self) -> str:
        """SP astring, in the command's charset. Raises: BadSyntax."""
        self.reader.read_sp()
        data = self.reader.read_astring()
        if len(data) > LONGEST_TEXT:
            raise LimitReached("the text to search for is too long")
        try:
            return data.decode(self.codec)
        except UnicodeDecodeError:
            raise BadSyntax("the text is not of the command's charset") from None

    def text_key(self, make: Callable[[str], Query]) -> Query:
        """SP astring, of which `make` makes a key; a fuzzy one within FUZZY. Raises: BadSyntax, LimitReached."""
        text = self.text()
        if not self.in_fuzzy or not (words := words_of(text)):
            return make(text)
        self.count_keys(len(words) - 1)
        return fuzzy_key(make, text, words)

    def count_keys(self, more: int) -> None:
        """Count keys. Raises: LimitReached."""
        self.keys += more
        if self.keys > MAX_KEYS:
            raise LimitReached("too many search keys")

    def number(self) -> int:
        """SP number."""
        self.reader.read_sp()
        return self.reader.read_number()

    def uid(self) -> int:
        """SP uniqueid."""
        if not (uid := self.number()):
            raise BadSyntax("a UID is at least 1")
        return uid

    def date(self) -> int:
        """SP date, in days."""
        self.reader.read_sp()
        return self.reader.read_date()

    def flag(self) -> str:
        """SP flag-keyword."""
        self.reader.read_sp()
        return self.reader.read_atom()


@define
class SearchParser(CriteriaParser):
    """The state of parsing the search keys of a command in a mailbox."""

    session: Session
    filters: Filters | None = field(default=NO_FILTERS, kw_only=True)
    in_several: bool = field(default=False, kw_only=True)
    """Several mailboxes are searched (RFC 7377): `scope.resolve_for` makes the query for each."""

    def in_mailbox(self, find: Callable[[View], InUIDs]) -> InUIDs:
        """The UIDs that a key means in the selected mailbox, or those in each of several, which are left open."""
        return PerMailbox((), find) if self.in_several else find(self.session.view)

    def is_selected(self, view: View) -> bool:
        """Is it the view of the selected mailbox?"""
        selected = self.session.selected
        return selected is not None and selected.view is view

    @property
    def saved_result(self) -> array[int]:
        """The session's."""
        return self.session.saved_result

    def refuse_numbers(self) -> None:
        """Refuse message numbers in a session with UIDONLY. Raises: UIDRequired."""
        refuse_numbers(self.session)
