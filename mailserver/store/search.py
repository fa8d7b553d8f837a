"""SEARCH over any store: a query tree, the candidates, and a source of facts about them.

The problem: facts differ in price by a factor of 1,000 (flags in memory, summaries in the index, files on disk), a
tree mixes them at will, NOT and OR included, and may be deep.

The rule: facts are fetched in rounds, cheapest first. In each round every key of the tree is a pair of bit
rows, one bit a candidate: known to match, and known not to. AND, OR and NOT of such pairs are three-valued logic on
whole mailboxes at once, so one pass over the tree tells which candidates are decided; only the others go on to the
next round. A file is opened only when its answer can still change something, and at most once.

Rejected: sorting the parts of each AND by price. It cannot see that an OR is decided by its cheap half.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from mailserver.message.summary import INCOMPLETE, KEPT_FIELDS
from mailserver.message.text import MessageText, fold
from mailserver.store.query import (
    All,
    And,
    Body,
    ChangedSince,
    HasFlag,
    Header,
    InUIDs,
    Larger,
    Not,
    Query,
    Received,
    Sent,
    Smaller,
    Text,
)
from mailserver.store.rows import Row
from mailserver.store.search_source import SearchSource, Where
from mailserver.store.search_tree import Leaf, compile_tree
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

DAY: Final = 86400
_MOST_NEEDLES: Final = 20
_RENDERED: Final = 1000
"""Messages that one step makes summaries of at most."""
_INDEXED: Final = 8
"""Questions to an index in one step."""
_FILES: Final = 200
_OCTETS: Final = 2 << 20
"""Messages, and octets of them, that one step looks into for one key; at least one message."""

_FEW: Final = 64
"""Candidates that are better dealt with one by one."""

Known = tuple[int, int]
"""Bit rows: candidates known to match, candidates known not to."""


def evaluate(query: Query, candidates: Sequence[UID], source: SearchSource) -> Sequence[UID]:
    """Those of the candidates (rising) that match, rising. Messages gone do not match."""
    search = Search(query, candidates, source)
    while (found := search.step()) is None:
        pass
    return found


class Search:
    """One evaluation (`store.interfaces.Searching`).

    Bit row: candidate 0 is the highest of `count` bits, so that int(text, 2) makes one.
    """

    def __init__(self, query: Query, candidates: Sequence[UID], source: SearchSource) -> None:
        self._uids = candidates
        self._count = len(candidates)
        self._all = (1 << self._count) - 1
        self._source = source
        self._program, self._leaves = compile_tree(query)
        self._known: list[Known] = [(0, 0)] * len(self._leaves)
        self._result: Known = (0, 0)
        self._gone = 0
        self._row_tests: list[tuple[int, Callable[[Row], bool | None]]] = []
        self._summary_tests: list[tuple[int, Callable[[str, int | None], bool | None]]] = []
        self._only_dates = True
        """No size is asked for."""
        self._needles: dict[str, None] = {}
        """What to look for in summaries."""
        self._absent: set[int] = set()
        """Keys that do not match where no needle is in the summary."""
        self._sent: dict[int, Sent] = {}
        """Keys that only the Date field decides."""
        self._unsent: set[UID] = set()
        """Messages whose Date field is not kept."""
        self._file_tests: list[tuple[int, Callable[[MessageText], bool]]] = []
        self._indexed: list[tuple[int, str, Where]] = []
        """Needles that an index of texts may know of."""
        for number, leaf in enumerate(self._leaves):
            self._prepare(number, leaf)
        self.looked_at = 0
        """Candidates that have been read in the round that runs."""
        self._rounds = self._run() if candidates else iter(())

    def step(self) -> Sequence[UID] | None:
        """Go on; what matches (rising) once all is known, else None."""
        for _ in self._rounds:
            return None
        found = self._of(self._result[0] & ~self._gone)
        return list(self._source.present(found)) if found else found

    def _run(self) -> Iterator[None]:
        """The rounds; what it yields are the ends of steps."""
        open_ = self._undecided()
        if open_ and self._row_tests:
            yield from self._learn_rows(open_)
            open_ = self._undecided()
        if open_ and self._sent:
            yield from self._learn_sent(open_)
            open_ = self._undecided()
        if open_ and self._indexed:
            yield from self._learn_index(open_)
            open_ = self._undecided()
        if open_ and self._summary_tests:
            yield from self._learn_summaries(open_)
            open_ = self._undecided()
        if open_ and self._file_tests:
            yield from self._learn_files(open_)
            self._undecided()

    def _undecided(self) -> list[UID]:
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

    def _learn_rows(self, uids: Sequence[UID]) -> Iterator[None]:
        """Flags, sizes, dates: one read for all."""
        found = self._test_rows(uids, self._source.rows(uids))
        for part in _parts(found, _RENDERED):
            yield
            self._source.measure(part, only_dates=self._only_dates)
            self._test_rows(part, self._source.rows(part))

    def _learn_sent(self, uids: Sequence[UID]) -> Iterator[None]:
        """Days of the Date field: from the index, one question for each key."""
        asked = self._bits(uids)
        for count, (number, key) in enumerate(self._sent.items(), 1):
            found = self._source.sent_within(uids, key.first, key.end)
            self._unsent.update(found.open)
            hits = self._bits(found.hits)
            yes, no = self._known[number]
            self._known[number] = yes | hits, no | asked & ~(hits | self._bits(found.open))
            if count % _INDEXED == 0:
                yield

    def _learn_index(self, uids: Sequence[UID]) -> Iterator[None]:
        """What the text index says: which messages plainly do not have a needle."""
        asked = self._bits(uids)
        for count, (number, needle, where) in enumerate(self._indexed, 1):
            found = self._source.indexed(uids, needle, where)
            if found is None:
                return
            yes, no = self._known[number]
            self._known[number] = yes, no | asked & ~(self._bits(found.open) | self._bits(found.hits))
            if count % _INDEXED == 0:
                yield

    def _learn_summaries(self, uids: Sequence[UID]) -> Iterator[None]:
        """Header text, and the Date field where it is not kept: from the index, in bulk."""
        if 0 < len(self._needles) <= _MOST_NEEDLES:
            open_ = self._unsent.union(self._learn_needles(uids))
            uids = [uid for uid in uids if uid in open_]
        for count, part in enumerate(_parts(uids, _RENDERED)):
            if count:
                yield
            facts = _Facts(self._summary_tests)
            seen: set[int] = set()
            for uid, text, sent in self._source.summaries(part):
                seen.add(uid)
                facts.add(uid, [test(text, sent) for _, test in self._summary_tests])
            self._take(facts)
            self._miss(part, seen)

    def _learn_files(self, uids: Sequence[UID]) -> Iterator[None]:
        """All that is left: each message read once, the fewer in a step the more is asked of each."""
        keys = len(self._file_tests)
        facts = _Facts(self._file_tests)
        seen: set[int] = set()
        files, room = _FILES, _OCTETS
        for uid, data in self._source.sources(uids):
            file = MessageText(data)
            seen.add(uid)
            facts.add(uid, [test(file) for _, test in self._file_tests])
            files -= keys
            room -= keys * len(data)
            if files <= 0 or room <= 0:
                files, room = _FILES, _OCTETS
                self.looked_at = len(seen)
                yield
        self._take(facts)
        self._miss(uids, seen)

    def _test_rows(self, uids: Sequence[UID], rows: Iterable[Row]) -> list[UID]:
        """Run the row tests; the UIDs for which one could not tell."""
        facts = _Facts(self._row_tests)
        unknown: list[UID] = []
        seen: set[int] = set()
        for row in rows:
            seen.add(row.uid)
            if facts.add(row.uid, [test(row) for _, test in self._row_tests]):
                unknown.append(row.uid)
        self._take(facts)
        self._miss(uids, seen)
        return unknown

    def _learn_needles(self, uids: Sequence[UID]) -> Sequence[UID]:
        """Have the source look for the needles, and judge only where they are; those it did not look at."""
        found = self._source.texts_with(uids, tuple(self._needles))
        tests = [(number, test) for number, test in self._summary_tests if number not in self._sent]
        facts = _Facts(tests)
        for uid, text in found.hits:
            facts.add(uid, [test(text, None) for _, test in tests])
        self._take(facts)
        looked_at = self._bits(uids) & ~self._bits(found.open) & ~self._bits([uid for uid, _ in found.hits])
        for number in self._absent:
            yes, no = self._known[number]
            self._known[number] = yes, no | looked_at
        return found.open

    def _take(self, facts: _Facts) -> None:
        for number, yes, no in facts.told():
            known_yes, known_no = self._known[number]
            self._known[number] = (known_yes | self._bits(yes), known_no | self._bits(no))

    def _miss(self, asked: Sequence[UID], seen: set[int]) -> None:
        """Those that were asked for and not told of are gone."""
        if len(seen) < len(asked):
            self._gone |= self._bits([uid for uid in asked if uid not in seen])

    def _bits(self, uids: Sequence[int]) -> int:
        if not uids:
            return 0
        if len(uids) == self._count:
            return self._all
        if len(uids) <= _FEW:
            bits = 0
            for uid in uids:
                bits |= 1 << (self._count - 1 - bisect_left(self._uids, uid))
            return bits
        text = bytearray(b"0") * self._count
        for uid in uids:
            text[bisect_left(self._uids, uid)] = 49
        return int(text, 2)

    def _of(self, bits: int) -> list[UID]:
        if bits == 0:
            return []
        if bits == self._all:
            return list(self._uids)
        if bits.bit_count() <= _FEW:
            found = []
            while bits:
                highest = bits.bit_length() - 1
                found.append(self._uids[self._count - 1 - highest])
                bits ^= 1 << highest
            return found
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
                self._only_dates &= not isinstance(leaf, Larger | Smaller)
            case Sent(first, end):
                self._sent[number] = leaf
                self._summary_tests.append((number, lambda _text, sent: sent is not None and _within(sent, first, end)))
            case Header(name, text):
                self._prepare_header(number, name.lower(), fold(text))
            case Body(text):
                needle = fold(text)
                self._indexed.append((number, needle, Where.BODY))
                self._file_tests.append((number, lambda file: not file.lacks(needle) and needle in file.body))
            case Text(text):
                wanted = fold(text)
                self._needles[wanted] = None
                self._indexed.append((number, wanted, Where.ANYWHERE))
                self._summary_tests.append((number, lambda kept, _sent: True if wanted in kept[1:] else None))
                self._file_tests.append((number, partial(_anywhere, wanted)))

    def _prepare_header(self, number: int, name: str, needle: str) -> None:
        def in_summary(text: str, _sent: int | None) -> bool | None:
            return None if text == INCOMPLETE else _field_contains(text, name, needle)

        if name in KEPT_FIELDS:
            self._summary_tests.append((number, in_summary))
            self._needles[needle or f"\n{name}: "] = None
            self._absent.add(number)
        elif needle:
            self._indexed.append((number, needle, Where.HEADER))
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


def _parts(uids: Sequence[UID], size: int) -> Iterator[Sequence[UID]]:
    return (uids[start : start + size] for start in range(0, len(uids), size))


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
