"""SEARCH over any store: a query tree, the candidates, and a source of facts about them.

The problem: facts differ in price by a factor of 1,000 (flags in memory, summaries in the index, files on disk). A tree
mixes them at will, with NOT and OR, and may be deep.

The rule: facts are fetched in rounds, cheapest first. In each round every key of the tree is a pair of bit rows, one
bit a candidate: known to match, and known not to match. AND, OR and NOT of such pairs are three-valued logic on whole
mailboxes at once. One pass over the tree shows the decided candidates; only the others go on to the next round. A file
is opened only when its answer can still change something, and at most once.

A step ends by the clock. All rounds are one generator that yields after each bounded piece of work, also within a
message (`message.matcher`). A step can end at each of these points; the next one continues there.

Rejected: sorting the parts of each AND by price. It cannot see that an OR is decided by its cheap half.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Final

from mailserver.cancellation import check
from mailserver.message.matcher import MessageMatcher, SearchTerm, field_contains
from mailserver.message.summary import INCOMPLETE, KEPT_FIELDS
from mailserver.message.text import fold
from mailserver.store.batch_size import STEP, BatchSize
from mailserver.store.candidates import Candidates
from mailserver.store.query import (
    All,
    And,
    Arrived,
    Body,
    ChangedSince,
    HasFlag,
    Header,
    InUIDs,
    Larger,
    Leaf,
    Not,
    Query,
    Received,
    Saved,
    Sent,
    Smaller,
    Text,
    WithEmailId,
)
from mailserver.store.rows import Row
from mailserver.store.search_results import DAY, Results, is_within, row_test
from mailserver.store.search_source import SearchSource, Where
from mailserver.store.search_tree import compile_tree
from mailserver.types import UID

FREE_NEEDLES: Final = 20
"""Needles that one search may compare with any number of octets. A text index is asked for no more than these."""
BUSY: Final = 0.1
"""Seconds to wait while other searches hold all the memory."""
_RENDERED: Final = 1000
"""Most messages that are rendered or measured at once."""
_COMPARED: Final = 4 * 1024 * 1024
"""Octets of text times needles between two checks of the clock: some milliseconds."""
TESTED: Final = 512
"""Cost of one test of one message in that measure, beside the octets of a text."""

_FEW: Final = 64
"""Messages of a first batch, whose cost is not known."""

_Texts = Sequence[tuple[UID, str, int | None]]
"""(uid, HeaderText.text, HeaderText.sent)."""

Known = tuple[int, int]
"""Bit rows: candidates known to match, candidates known not to."""


def evaluate(query: Query, candidates: Sequence[UID], source: SearchSource) -> Sequence[UID]:
    """Return the candidates (rising) that match, rising. Messages that are gone do not match."""
    search = Search(query, candidates, source)
    while (found := search.step()) is None:
        time.sleep(search.pause)
    return found


class Search:
    """One evaluation (`store.interfaces.SearchRun`)."""

    def __init__(
        self,
        query: Query,
        candidates: Sequence[UID],
        source: SearchSource,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._candidates = Candidates(candidates)
        self._uids = candidates
        self._source = source
        self._program, self._leaves = compile_tree(query)
        self._known: list[Known] = [(0, 0)] * len(self._leaves)
        self._result: Known = (0, 0)
        self._gone = 0
        self._row_tests: list[tuple[int, Callable[[Row], bool | None]]] = []
        self._summary_tests: list[tuple[int, Callable[[str, int | None], bool | None]]] = []
        self._only_dates = True
        """No key needs a size."""
        self._needles: dict[str, None] = {}
        """Needles to find in summaries."""
        self._names: set[str] | None = set()
        """The header fields that are needed of summaries; None: all, or their days."""
        self._absent: set[int] = set()
        """Keys that do not match if no needle is in the summary."""
        self._sent: dict[int, Sent] = {}
        """Keys that only the Date field decides."""
        self._unsent: set[UID] = set()
        """Messages whose Date field is not kept."""
        self._sought: list[tuple[int, SearchTerm]] = []
        """Terms to find in the messages themselves."""
        self._indexed: list[tuple[int, str, Where]] = []
        """Needles that a text index may decide."""
        self._saved: Mapping[UID, int] | None = None
        """The save dates, once a key needs them."""
        for number, leaf in enumerate(self._leaves):
            self._prepare(number, leaf)
        self.looked_at = 0
        """Candidates that have been read in the current round."""
        self.work = 0
        """Octets of text times keys, beyond FREE_NEEDLES of these, that have been compared."""
        self.pause = 0.0
        """Seconds to wait before the next step, as other searches hold the memory that it needs."""
        self.expunged = False
        """At the end: some candidates were left out because they no longer exist."""
        self._since_pause = 0
        self._rounds = self._run()

    def step(self) -> Sequence[UID] | None:
        """Continue for STEP seconds. Return the matching UIDs (rising) at the end, else None. Raises: Cancelled."""
        check()
        self.pause = 0.0
        end = self._clock() + STEP
        for _ in self._rounds:
            check()
            if self.pause or self._clock() >= end:
                return None
        found = self._candidates.of(self._result[0] & ~self._gone)
        kept = list(self._source.present(found)) if found else found
        # A message that cannot be read is left out as well, and exists.
        left_out = self._candidates.of(self._gone)
        self.expunged = len(kept) < len(found) or (
            bool(left_out) and len(self._source.present(left_out)) < len(left_out)
        )
        return kept

    def close(self) -> None:
        """Release what is held between two steps. Repeating it is harmless."""
        self._rounds.close()

    def _run(self) -> Generator[None]:
        """Run the rounds. Each piece of work between two yields is bounded, to a few milliseconds where possible."""
        if not self._candidates.all:
            return
        open_ = self._undecided()
        for tests, learn in (
            (self._row_tests, self._learn_rows),
            (self._sent, self._learn_sent),
            (self._indexed, self._learn_index),
            (self._summary_tests, self._learn_summaries),
            (self._sought, self._learn_files),
        ):
            if open_ and tests:
                yield from learn(open_)
                open_ = self._undecided()

    def _undecided(self) -> list[UID]:
        """Evaluate the tree over the known facts. Return the undecided candidates."""
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
        return self._candidates.of(self._candidates.all & ~(self._result[0] | self._result[1] | self._gone))

    def _learn_rows(self, uids: Sequence[UID]) -> Iterator[None]:
        """Fetch flags, sizes and dates: one read for all."""
        found = yield from self._test_rows(uids, self._source.rows(uids))
        batch_size = self._batch_size(_RENDERED, _FEW)
        for part in batch_size.parts(found):
            with batch_size:
                self._source.measure(part, only_dates=self._only_dates)
            yield
            yield from self._test_rows(part, self._source.rows(part))

    def _learn_sent(self, uids: Sequence[UID]) -> Iterator[None]:
        """Fetch the days of the Date field from the index: one query for each key."""
        asked = self._candidates.bits(uids)
        for number, key in self._sent.items():
            found = self._source.sent_within(uids, key.first, key.end)
            self._unsent.update(found.open)
            hits = self._candidates.bits(found.hits)
            yes, no = self._known[number]
            self._known[number] = yes | hits, no | asked & ~(hits | self._candidates.bits(found.open))
            yield

    def _learn_index(self, uids: Sequence[UID]) -> Iterator[None]:
        """Ask the text index which messages do not contain a needle."""
        asked = self._candidates.bits(uids)
        for number, needle, where in self._indexed:
            found = self._source.indexed(uids, needle, where)
            if found is None:
                return
            yes, no = self._known[number]
            self._known[number] = (
                yes,
                no | asked & ~(self._candidates.bits(found.open) | self._candidates.bits(found.hits)),
            )
            yield

    def _learn_summaries(self, uids: Sequence[UID]) -> Iterator[None]:
        """Fetch the header text, and the Date field where it is not kept, from the index in bulk."""
        if 0 < len(self._needles) <= FREE_NEEDLES:
            open_ = set(self._unsent)
            batch_size = self._batch_size(len(uids), _FEW // len(self._needles))
            for part in batch_size.parts(uids):
                with batch_size:
                    open_.update(self._learn_needles(part))
                yield
            uids = [uid for uid in uids if uid in open_]
        if not self._absent and not self._sent:
            # TEXT alone: a text that is not kept costs more to make than to compare with the message, which is read anyway.
            return
        batch_size = self._batch_size(_RENDERED, _FEW)
        tests = [test for _, test in self._summary_tests]
        for part in batch_size.parts(uids):
            facts = Results(self._summary_tests)
            seen: set[int] = set()
            with batch_size:
                texts = list(self._source.summaries(part, self._names))
            seen.update([uid for uid, _text, _sent in texts])
            for uid, text, sent in self._without_lacking(texts):
                facts.add(uid, [test(text, sent) for test in tests])
                if self._count_work((len(text) + TESTED) * len(tests), len(tests)):
                    yield
            yield from self._take(facts)
            self._miss(part, seen)

    def _learn_files(self, uids: Sequence[UID]) -> Iterator[None]:
        """Read each remaining message once."""
        sought = [key for _, key in self._sought]
        facts = Results(self._sought)
        seen: set[int] = set()
        for uid, data in self._source.sources(uids):
            if data is None:
                self.pause = BUSY
                yield
                continue
            match = MessageMatcher(data, sought)
            counted = 0
            if match.is_short:
                match.match_at_once()
            else:
                for _ in match.run():
                    self._count_work(match.work - counted, len(sought))
                    counted = match.work
                    yield
            self._count_work(match.work - counted + TESTED * len(sought), len(sought))
            seen.add(uid)
            facts.add(uid, match.found)
            self.looked_at = len(seen)
            yield
        yield from self._take(facts)
        self._miss(uids, seen)

    def _batch_size(self, most: int, first: int) -> BatchSize:
        return BatchSize(most, first, self._clock)

    def _count_work(self, compared: int, needles: int) -> bool:
        """Count octets of text times keys. True if it is time for a pause."""
        self.work += compared * max(0, needles - FREE_NEEDLES) // max(1, needles)
        self._since_pause += compared
        if self._since_pause < _COMPARED:
            return False
        self._since_pause = 0
        return True

    def _test_rows(self, uids: Sequence[UID], rows: Iterable[Row]) -> Generator[None, None, list[UID]]:
        """Run the row tests. Return the UIDs for which a test could not decide."""
        facts = Results(self._row_tests)
        tests = [test for _, test in self._row_tests]
        unknown: list[UID] = []
        seen: set[int] = set()
        for row in rows:
            seen.add(row.uid)
            if facts.add(row.uid, [test(row) for test in tests]):
                unknown.append(row.uid)
            if self._count_work(TESTED * len(tests), len(tests)):
                yield
        yield from self._take(facts)
        self._miss(uids, seen)
        return unknown

    def _learn_needles(self, uids: Sequence[UID]) -> Sequence[UID]:
        """Let the source find the needles, and test only its hits. Return the UIDs that it did not examine."""
        found = self._source.texts_with(uids, tuple(self._needles), self._names)
        tests = [(number, test) for number, test in self._summary_tests if number not in self._sent]
        facts = Results(tests)
        for uid, text in found.hits:
            facts.add(uid, [test(text, None) for _, test in tests])
        for _ in self._take(facts):
            pass
        looked_at = (
            self._candidates.bits(uids)
            & ~self._candidates.bits(found.open)
            & ~self._candidates.bits([uid for uid, _ in found.hits])
        )
        for number in self._absent:
            yes, no = self._known[number]
            self._known[number] = yes, no | looked_at
        return found.open

    def _without_lacking(self, texts: _Texts) -> _Texts:
        """Decide the keys for texts that have none of the needles, if all keys need one. Return the other texts.

        Nearly all messages of a first search are decided here.
        """
        needles = tuple(self._needles)
        if not 0 < len(needles) <= FREE_NEEDLES or len(self._summary_tests) != len(self._absent):
            return texts
        if len(needles) * (TESTED * len(texts) + sum([len(text) for _uid, text, _sent in texts])) > _COMPARED:
            return texts
        rest = [each for each in texts if each[1] == INCOMPLETE or any(needle in each[1] for needle in needles)]
        others = {uid for uid, _text, _sent in rest}
        lacking = self._candidates.bits([uid for uid, _text, _sent in texts if uid not in others])
        for number in self._absent:
            yes, no = self._known[number]
            self._known[number] = yes, no | lacking
        return rest

    def _take(self, facts: Results) -> Iterator[None]:
        """Record the test results of a round."""
        for number, yes, no in facts.by_test():
            known_yes, known_no = self._known[number]
            self._known[number] = (known_yes | self._candidates.bits(yes), known_no | self._candidates.bits(no))
            yield

    def _miss(self, asked: Sequence[UID], seen: set[int]) -> None:
        """Drop the requested messages that the source did not return: they are gone."""
        if len(seen) < len(asked):
            self._gone |= self._candidates.bits([uid for uid in asked if uid not in seen])

    def _prepare(self, number: int, leaf: Leaf) -> None:
        """Decide a key that needs no facts, else record its test."""
        match leaf:
            case All():
                self._known[number] = (self._candidates.all, 0)
            case InUIDs(ranges):
                inside = self._candidates.within(ranges)
                self._known[number] = (inside, self._candidates.all & ~inside)
            case HasFlag(flag):
                mask = self._source.flag_mask(flag)
                if mask:
                    self._row_tests.append((number, lambda row: bool(row.flags & mask)))
                else:
                    self._known[number] = (0, self._candidates.all)
            case Larger() | Smaller() | Received() | Arrived() | ChangedSince():
                self._row_tests.append((number, row_test(leaf)))
                self._only_dates &= not isinstance(leaf, Larger | Smaller)
            case Saved(first, end):
                if self._saved is None:
                    self._saved = self._source.save_dates(self._uids)
                    self._miss(self._uids, set(self._saved))
                inside = self._candidates.bits(
                    [uid for uid, date in self._saved.items() if is_within(date // DAY, first, end)]
                )
                self._known[number] = (inside, self._candidates.all & ~inside)
            case WithEmailId(email_id):
                found = self._source.email_ids(self._uids)
                self._miss(self._uids, set(found))
                same = self._candidates.bits([uid for uid, each in found.items() if each == email_id])
                self._known[number] = (same, self._candidates.all & ~same)
            case Sent(first, end):
                self._sent[number] = leaf
                self._names = None
                self._summary_tests.append(
                    (number, lambda _text, sent: sent is not None and is_within(sent, first, end))
                )
            case Header(name, text):
                self._prepare_header(number, name.lower(), fold(text))
            case Body(text):
                needle = fold(text)
                self._indexed.append((number, needle, Where.BODY))
                self._sought.append((number, SearchTerm(needle, body_only=True)))
            case Text(text):
                wanted = fold(text)
                self._needles[wanted] = None
                self._names = None
                self._indexed.append((number, wanted, Where.ANYWHERE))
                self._summary_tests.append((number, lambda kept, _sent: True if kept.find(wanted, 1) >= 0 else None))
                self._sought.append((number, SearchTerm(wanted)))

    def _prepare_header(self, number: int, name: str, needle: str) -> None:
        def in_summary(text: str, _sent: int | None) -> bool | None:
            return None if text == INCOMPLETE else field_contains(text, name, needle)

        if name in KEPT_FIELDS:
            self._summary_tests.append((number, in_summary))
            self._needles[needle or f"\n{name}: "] = None
            self._absent.add(number)
            if self._names is not None:
                self._names.add(name)
        elif needle:
            self._indexed.append((number, needle, Where.HEADER))
        self._sought.append((number, SearchTerm(needle, field=name)))
