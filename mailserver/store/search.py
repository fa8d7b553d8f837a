"""SEARCH over any store: a query tree, the candidates, and a source of facts about them.

The problem: facts differ in price by a factor of 1,000 (flags in memory, summaries in the index, files on disk), a
tree mixes them at will, NOT and OR included, and may be deep.

The rule: facts are fetched in three rounds, cheapest first. In each round every key of the tree is a pair of bit
rows, one bit a candidate: known to match, and known not to. AND, OR and NOT of such pairs are three-valued logic on
whole mailboxes at once, so one pass over the tree tells which candidates are decided; only the others go on to the
next round. A file is opened only when its answer can still change something, and at most once.

Rejected: sorting the parts of each AND by price. It cannot see that an OR is decided by its cheap half.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

from attrs import frozen

from mailserver.message.summary import INCOMPLETE, KEPT_FIELDS
from mailserver.message.text import MessageText, fold
from mailserver.store.interfaces import (
    All,
    And,
    Body,
    ChangedSince,
    HasFlag,
    Header,
    InUIDs,
    Larger,
    Not,
    Or,
    Query,
    Received,
    Row,
    Sent,
    Smaller,
    Text,
)
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

DAY: Final = 86400
_MOST_NEEDLES: Final = 20

Known = tuple[int, int]
"""Bit rows: candidates known to match, candidates known not to."""


@frozen
class TextsWith:
    """What `SearchSource.texts_with` found; all other messages are there, and have none of the needles."""

    hits: Sequence[tuple[UID, str]] = ()
    """(uid, Summary.search) of those that have a needle, or INCOMPLETE."""
    open: Sequence[UID] = ()
    """Those that were not looked at."""


class SearchSource(Protocol):
    """The facts of one mailbox, by price. Each call is made for as few messages as possible."""

    def rows(self, uids: Sequence[UID]) -> Iterable[Row]:
        """What the index knows of these, in any order; messages gone are left out."""

    def flag_mask(self, name: str) -> int:
        """The bit of a system flag or keyword (any case); 0 if the mailbox has no such keyword."""

    def summaries(self, uids: Sequence[UID]) -> Iterable[tuple[UID, str, int | None]]:
        """(uid, Summary.search, Summary.sent) in any order, made and kept where missing, with size and date of the row.

        Messages gone are left out.
        """

    def texts_with(self, uids: Sequence[UID], needles: Sequence[str]) -> TextsWith:
        """Find needles in Summary.search where it is kept. A source that cannot do that fast leaves all to `summaries`."""

    def sources(self, uids: Sequence[UID]) -> Iterable[tuple[UID, bytes]]:
        """The messages as sent, in the order given; those gone are left out. Lazy: not all are held at once."""


Leaf = All | InUIDs | HasFlag | Larger | Smaller | Received | Sent | Header | Body | Text | ChangedSince


def evaluate(query: Query, candidates: Sequence[UID], source: SearchSource) -> list[UID]:
    """Those of the candidates (rising) that match, rising. Messages gone do not match."""
    if not candidates:
        return []
    search = _Search(query, candidates, source)
    open_ = search.undecided()
    if open_ and search.needs_rows:
        search.learn_rows(open_)
        open_ = search.undecided()
    if open_ and search.needs_summaries:
        search.learn_summaries(open_)
        open_ = search.undecided()
    if open_ and search.needs_files:
        search.learn_files(open_)
        search.undecided()
    return search.matches()


class _Search:
    """One evaluation. Bit row: candidate 0 is the highest of `count` bits, so that int(text, 2) makes one."""

    def __init__(self, query: Query, candidates: Sequence[UID], source: SearchSource) -> None:
        self._uids = candidates
        self._count = len(candidates)
        self._all = (1 << self._count) - 1
        self._source = source
        self._program, self._leaves = _compile(query)
        self._known: list[Known] = [(0, 0)] * len(self._leaves)
        self._result: Known = (0, 0)
        self._gone = 0
        self._row_tests: list[tuple[int, Callable[[Row], bool | None]]] = []
        self._summary_tests: list[tuple[int, Callable[[str, int | None], bool | None]]] = []
        self._needles: dict[str, None] = {}
        """What to look for in summaries, if that is all that is asked of them."""
        self._absent: set[int] = set()
        """Keys that do not match where no needle is in the summary."""
        self._needles_only = True
        self._file_tests: list[tuple[int, Callable[[MessageText], bool]]] = []
        for number, leaf in enumerate(self._leaves):
            self._prepare(number, leaf)

    @property
    def needs_rows(self) -> bool:
        return bool(self._row_tests)

    @property
    def needs_summaries(self) -> bool:
        return bool(self._summary_tests)

    @property
    def needs_files(self) -> bool:
        return bool(self._file_tests)

    def undecided(self) -> list[UID]:
        """Run the tree over what is known; the candidates that it does not decide."""
        stack: list[Known] = []
        for step in self._program:
            if isinstance(step, int):
                stack.append(self._known[step])
            elif step is Not:
                yes, no = stack.pop()
                stack.append((no, yes))
            else:
                yes, no = stack.pop()
                other_yes, other_no = stack.pop()
                stack.append((yes & other_yes, no | other_no) if step is And else (yes | other_yes, no & other_no))
        self._result = stack.pop()
        return self._of(self._all & ~(self._result[0] | self._result[1] | self._gone))

    def matches(self) -> list[UID]:
        """The answer so far."""
        return self._of(self._result[0] & ~self._gone)

    def learn_rows(self, uids: Sequence[UID]) -> None:
        """Flags, sizes, dates: one read for all."""
        found = self._test_rows(uids, self._source.rows(uids))
        if found:
            # Sizes and dates of these become known when their summaries are made.
            for _ in self._source.summaries(found):
                pass
            self._test_rows(found, self._source.rows(found))

    def _test_rows(self, uids: Sequence[UID], rows: Iterable[Row]) -> list[UID]:
        """Run the row tests; the UIDs for which one could not tell."""
        facts = _Facts(self._row_tests)
        unknown: list[UID] = []
        seen: set[int] = set()
        for row in rows:
            seen.add(row.uid)
            if facts.add(row.uid, [test(row) for _, test in self._row_tests]):
                unknown.append(row.uid)
        self._take(facts, uids, seen)
        return unknown

    def learn_summaries(self, uids: Sequence[UID]) -> None:
        """Header text and the Date field: from the index, in bulk."""
        if self._needles_only and len(self._needles) <= _MOST_NEEDLES:
            uids = self._learn_needles(uids)
            if not uids:
                return
        facts = _Facts(self._summary_tests)
        seen: set[int] = set()
        for uid, text, sent in self._source.summaries(uids):
            seen.add(uid)
            facts.add(uid, [test(text, sent) for _, test in self._summary_tests])
        self._take(facts, uids, seen)

    def _learn_needles(self, uids: Sequence[UID]) -> Sequence[UID]:
        """Have the source look for the needles, and judge only where they are; those it did not look at."""
        found = self._source.texts_with(uids, tuple(self._needles))
        facts = _Facts(self._summary_tests)
        for uid, text in found.hits:
            facts.add(uid, [test(text, None) for _, test in self._summary_tests])
        self._take(facts, (), set())
        looked_at = self._bits(uids) & ~self._bits(found.open) & ~self._bits([uid for uid, _ in found.hits])
        for number in self._absent:
            yes, no = self._known[number]
            self._known[number] = yes, no | looked_at
        return found.open

    def learn_files(self, uids: Sequence[UID]) -> None:
        """All that is left: each message read once."""
        facts = _Facts(self._file_tests)
        seen: set[int] = set()
        for uid, data in self._source.sources(uids):
            file = MessageText(data)
            seen.add(uid)
            facts.add(uid, [test(file) for _, test in self._file_tests])
        self._take(facts, uids, seen)

    def _take(self, facts: _Facts, asked: Sequence[UID], seen: set[int]) -> None:
        for number, yes, no in facts.told():
            known_yes, known_no = self._known[number]
            self._known[number] = (known_yes | self._bits(yes), known_no | self._bits(no))
        if len(seen) < len(asked):
            self._gone |= self._bits([uid for uid in asked if uid not in seen])

    def _bits(self, uids: Sequence[int]) -> int:
        if not uids:
            return 0
        if len(uids) == self._count:
            return self._all
        text = bytearray(b"0") * self._count
        for uid in uids:
            text[bisect_left(self._uids, uid)] = 49
        return int(text, 2)

    def _of(self, bits: int) -> list[UID]:
        if bits == 0:
            return []
        if bits == self._all:
            return list(self._uids)
        return [uid for uid, bit in zip(self._uids, format(bits, f"0{self._count}b"), strict=True) if bit == "1"]

    def _prepare(self, number: int, leaf: Leaf) -> None:
        """Decide what needs no facts, and note the test of what does."""
        match leaf:
            case All():
                self._known[number] = (self._all, 0)
            case InUIDs(ranges):
                inside = self._ranges(ranges)
                self._known[number] = (inside, self._all & ~inside)
            case HasFlag(flag):
                mask = self._source.flag_mask(flag)
                if mask:
                    self._row_tests.append((number, lambda row: bool(row.flags & mask)))
                else:
                    self._known[number] = (0, self._all)
            case Larger() | Smaller() | Received() | ChangedSince():
                self._row_tests.append((number, _row_test(leaf)))
            case Sent(first, end):
                self._needles_only = False
                self._summary_tests.append((number, lambda _text, sent: sent is not None and _within(sent, first, end)))
            case Header(name, text):
                self._prepare_header(number, name.lower(), fold(text))
            case Body(text):
                needle = fold(text)
                self._file_tests.append((number, lambda file: not file.lacks(needle) and needle in file.body))
            case Text(text):
                wanted = fold(text)
                self._needles[wanted] = None
                self._summary_tests.append((number, lambda kept, _sent: True if wanted in kept[1:] else None))
                self._file_tests.append((number, partial(_anywhere, wanted)))

    def _prepare_header(self, number: int, name: str, needle: str) -> None:
        def in_summary(text: str, _sent: int | None) -> bool | None:
            return None if text == INCOMPLETE else _field_contains(text, name, needle)

        if name in KEPT_FIELDS:
            self._summary_tests.append((number, in_summary))
            self._needles[needle or f"\n{name}: "] = None
            self._absent.add(number)
        self._file_tests.append(
            (number, lambda file: not (needle and file.lacks(needle)) and _field_contains(file.header, name, needle))
        )

    def _ranges(self, ranges: Iterable[tuple[int, int]]) -> int:
        bits = 0
        for first, last in ranges:
            low, high = bisect_left(self._uids, first), bisect_right(self._uids, last)
            if low < high:
                bits |= ((1 << (high - low)) - 1) << (self._count - high)
        return bits


class _Facts:
    """Answers of the tests of one round, gathered by test."""

    def __init__(self, tests: Sequence[tuple[int, object]]) -> None:
        self._numbers = [number for number, _ in tests]
        self._yes: list[list[int]] = [[] for _ in tests]
        self._no: list[list[int]] = [[] for _ in tests]

    def add(self, uid: int, answers: Iterable[bool | None]) -> bool:
        """One message's answers, in the order of the tests; True if one of them is None."""
        unknown = False
        for yes, no, answer in zip(self._yes, self._no, answers, strict=True):
            if answer is None:
                unknown = True
            else:
                (yes if answer else no).append(uid)
        return unknown

    def told(self) -> Iterable[tuple[int, list[int], list[int]]]:
        """(number of the key, UIDs that match, UIDs that do not)."""
        return zip(self._numbers, self._yes, self._no, strict=True)


def _compile(query: Query) -> tuple[list[int | type], list[Leaf]]:
    """The tree as steps of a stack machine: a leaf's number, or And, Or, Not. Without recursion; equal leaves are one."""
    program: list[int | type] = []
    numbers: dict[Leaf, int] = {}
    todo: list[Query | type] = [query]
    while todo:
        node = todo.pop()
        if isinstance(node, type):
            program.append(node)
        elif isinstance(node, Not):
            todo += (Not, node.part)
        elif isinstance(node, And | Or) and node.parts:
            # Joined two by two, so that the stack stays low for a wide node.
            first, *others = node.parts
            for part in reversed(others):
                todo += (type(node), part)
            todo.append(first)
        elif isinstance(node, Or):
            todo += (Not, All())
        else:
            leaf = All() if isinstance(node, And) else node
            program.append(numbers.setdefault(leaf, len(numbers)))
    return program, list(numbers)


def _row_test(leaf: Larger | Smaller | Received | ChangedSince) -> Callable[[Row], bool | None]:
    match leaf:
        case Larger(size):
            return lambda row: None if row.size == UNKNOWN_SIZE else row.size > size
        case Smaller(size):
            return lambda row: None if row.size == UNKNOWN_SIZE else row.size < size
        case Received(first, end):
            return lambda row: None if row.date == UNKNOWN_DATE else _within(row.date // DAY, first, end)
        case ChangedSince(modseq):
            return lambda row: row.modseq >= modseq


def _anywhere(needle: str, text: MessageText) -> bool:
    return not text.lacks(needle) and (
        needle in text.header or needle in text.body or needle in text.inner_headers
    )  # fmt: skip


def _within(day: int, first: int | None, end: int | None) -> bool:
    return (first is None or first <= day) and (end is None or day < end)


def _field_contains(text: str, name: str, needle: str) -> bool:
    """In lines "\\n" + name + ": " + value: does a value of that name contain the needle?"""
    if needle not in text:
        return False
    start = f"\n{name}: "
    at = text.find(start)
    while at >= 0:
        at += len(start)
        end = text.find("\n", at)
        if text.find(needle, at, end if end >= 0 else len(text)) >= 0:
            return True
        at = text.find(start, at - 1 if end < 0 else end)
    return False
