"""Search over a source of facts: right answers, and no fact fetched that cannot matter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.header_summary import HeaderSummary
from mailserver.message.matcher import field_contains
from mailserver.message.summary import INCOMPLETE
from mailserver.message.text import MessageText, fold
from mailserver.store.flags import FLAGGED, KEYWORD_BIT, SEEN, SYSTEM_FLAGS
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
    Or,
    Query,
    Received,
    Sent,
    Smaller,
    Text,
)
from mailserver.store.rows import Row
from mailserver.store.search import evaluate
from mailserver.store.search_source import Indexed, SentWithin, TextsWith, Where
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq
from tests.sweeps import choose

DAY = 86400


def message(**fields: str) -> bytes:
    body = fields.pop("body", "")
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{lines}\r\n{body}".encode()


MESSAGES = {
    1: (message(From="anna@example.test", Subject="One", Date="1 Jan 2020 10:00 +0000", body="alpha"), SEEN, 0),
    2: (message(From="Bert <b@example.test>", Subject="=?utf-8?q?=C3=84pfel?=", body="Beta"), 0, DAY - 1),
    5: (message(To="anna@example.test", X_Thing="Yes", body="gamma alpha"), FLAGGED | 1 << KEYWORD_BIT, DAY),
    9: (message(Subject="two", Date="31 Dec 2019 23:00 -1200", X_Thing="no"), SEEN | FLAGGED, 3 * DAY),
}


def sent_day_of(data: bytes) -> int | None:
    return HeaderSummary.of_message(data).text().sent


class Source:
    """MaildirSearchSource of MESSAGES, and a record of what was fetched."""

    def __init__(
        self,
        *,
        unmeasured: bool = False,
        incomplete: bool = False,
        gone: Iterable[int] = (),
        kept: bool = True,
        indexed: Iterable[int] | None = None,
        undated: Iterable[int] = (),
    ) -> None:
        self.undated = set(undated)
        self.in_index = None if indexed is None else set(indexed)
        self.kept = kept
        self.asked_rows: list[int] = []
        self.asked_summaries: list[int] = []
        self.asked_measures: list[int] = []
        self.asked_names: list[Collection[str] | None] = []
        self.asked_sizes = False
        self.asked_files: list[int] = []
        self.measured = not unmeasured
        self.incomplete = incomplete
        self.gone = set(gone)

    def rows(self, uids: Sequence[UID]) -> list[Row]:
        self.asked_rows += uids
        return [self._row(uid) for uid in reversed(uids) if uid not in self.gone]

    def _row(self, uid: UID) -> Row:
        data, flags, date = MESSAGES[uid]
        if not self.measured:
            return Row(uid, flags, ModSeq(100 + uid), UNKNOWN_SIZE, UNKNOWN_DATE)
        return Row(uid, flags, ModSeq(100 + uid), len(data), date)

    def measure(self, uids: Sequence[UID], *, only_dates: bool) -> None:
        self.asked_measures += uids
        self.asked_sizes |= not only_dates
        self.measured = True

    def flag_mask(self, name: str) -> int:
        known = {flag.lower(): mask for flag, mask in SYSTEM_FLAGS.items()} | {"work": 1 << KEYWORD_BIT}
        return known.get(name.lower(), 0)

    def summaries(self, uids: Sequence[UID], names: Collection[str] | None) -> list[tuple[UID, str, int | None]]:
        self.asked_names.append(names)
        self.asked_summaries += uids
        found = []
        for uid in uids:
            if uid not in self.gone:
                text, sent = HeaderSummary.of_message(MESSAGES[uid][0]).text()
                found.append((uid, INCOMPLETE if self.incomplete else text, sent))
        return found

    def texts_with(self, uids: Sequence[UID], needles: Sequence[str], names: Collection[str] | None) -> TextsWith:
        if not self.kept:
            return TextsWith(open=uids)
        texts = [(uid, text) for uid, text, _sent in self.summaries(uids, names)]
        there = {uid for uid, _text in texts}
        hits = [row for row in texts if row[1] == INCOMPLETE or any(needle in row[1] for needle in needles)]
        return TextsWith(hits, [uid for uid in uids if uid not in there])

    def sent_within(self, uids: Sequence[UID], first: int | None, end: int | None) -> SentWithin:
        if not self.kept:
            return SentWithin(open=uids)
        known = {uid: sent_day_of(MESSAGES[uid][0]) for uid in uids if uid not in self.gone | self.undated}
        hits = [
            uid for uid, sent in known.items()
            if sent is not None and (first is None or first <= sent) and (end is None or sent < end)
        ]  # fmt: skip
        return SentWithin(hits, [uid for uid in uids if uid not in known])

    def indexed(self, uids: Sequence[UID], needle: str, where: Where) -> Indexed | None:
        """As an index of letters would tell, which finds too much."""
        if self.in_index is None:
            return None
        hits = [uid for uid in uids if uid in self.in_index and set(needle) <= set(letters(uid, where))]
        return Indexed(hits, [uid for uid in uids if uid not in self.in_index])

    def present(self, uids: Sequence[UID]) -> Sequence[UID]:
        return [uid for uid in uids if uid not in self.gone]

    def sources(self, uids: Sequence[UID]) -> Iterator[tuple[UID, bytes]]:
        for uid in uids:
            self.asked_files.append(uid)
            if uid not in self.gone:
                yield uid, MESSAGES[uid][0]


def letters(uid: UID, where: Where) -> str:
    text = MessageText(MESSAGES[uid][0])
    header = text.header + text.inner_headers
    return {Where.HEADER: header, Where.BODY: text.body, Where.ANYWHERE: header + text.body}[where]


UIDS = [UID(uid) for uid in MESSAGES]


def search(query: Query, source: Source | None = None) -> list[int]:
    return list(evaluate(query, UIDS, source or Source()))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (All(), [1, 2, 5, 9]),
        (And(()), [1, 2, 5, 9]),
        (Or(()), []),
        (Not(All()), []),
        (InUIDs(((1, 3), (6, 9))), [1, 2, 9]),
        (InUIDs(((3, 4), (10, 99))), []),
        (InUIDs(()), []),
        (HasFlag("\\Seen"), [1, 9]),
        (HasFlag("\\seen"), [1, 9]),
        (Not(HasFlag("\\Seen")), [2, 5]),
        (HasFlag("WORK"), [5]),
        (HasFlag("unknown"), []),
        (Not(HasFlag("unknown")), [1, 2, 5, 9]),
        (Larger(len(MESSAGES[9][0])), [uid for uid in UIDS if len(MESSAGES[uid][0]) > len(MESSAGES[9][0])]),
        (Smaller(len(MESSAGES[9][0])), [uid for uid in UIDS if len(MESSAGES[uid][0]) < len(MESSAGES[9][0])]),
        (Received(None, 1), [1, 2]),
        (Received(1, None), [5, 9]),
        (Received(0, 1), [1, 2]),
        (Received(1, 2), [5]),
        (Sent(18262, None), [1]),  # 1 January 2020
        (Sent(None, 18262), [9]),
        (Not(Sent(None, None)), [2, 5]),
        (ChangedSince(ModSeq(105)), [5, 9]),
        (Header("from", "ANNA"), [1]),
        (Header("From", "bert"), [2]),
        (Header("subject", "äPFEL"), [2]),
        (Header("subject", ""), [1, 2, 9]),
        (Header("cc", ""), []),
        (Header("subject", "anna"), []),
        (Header("x-thing", "yes"), [5]),
        (Header("X-Thing", ""), [5, 9]),
        (Header("x-thin", ""), []),
        (Header("thing", ""), []),
        (Body("ALPHA"), [1, 5]),
        (Body("anna"), []),
        (Text("anna"), [1, 5]),
        (Text("alpha"), [1, 5]),
        (Text("äpfel"), [2]),
        (Text("x-thing"), [5, 9]),
        (Or((HasFlag("\\Flagged"), Body("beta"))), [2, 5, 9]),
        (And((HasFlag("\\Flagged"), Not(Header("x-thing", "yes")))), [9]),
        (Or((And((InUIDs(((1, 2),)), Not(HasFlag("\\Seen")))), Sent(18261, 18262))), [2, 9]),
    ],
)
def test_keys(query: Query, found: list[int]) -> None:
    assert search(query) == found
    assert search(Not(Not(query))) == found
    assert search(Not(query)) == [uid for uid in UIDS if uid not in found]
    assert search(query, Source(unmeasured=True)) == found
    assert search(query, Source(incomplete=True)) == found
    assert search(query, Source(kept=False)) == found
    assert search(query, Source(indexed=UIDS)) == found
    assert search(query, Source(indexed=[1, 9])) == found
    assert search(Not(query), Source(indexed=[2, 5, 77])) == [uid for uid in UIDS if uid not in found]


def test_files_are_opened_only_where_they_can_matter() -> None:
    source = Source()
    assert search(And((Body("alpha"), HasFlag("\\Seen"), Header("from", "anna"))), source) == [1]
    assert source.asked_files == [1]
    assert source.asked_summaries == [1, 9]
    source = Source()
    assert search(Or((Body("alpha"), HasFlag("\\Seen"))), source) == [1, 5, 9]
    assert source.asked_files == [2, 5]
    assert source.asked_summaries == []


def test_a_file_is_read_once() -> None:
    source = Source()
    search(Or((And((Body("x"), Body("y"))), Text("z"), Header("x-none", "q"))), source)
    assert source.asked_files == UIDS


def test_kept_fields_and_dates_need_no_file() -> None:
    source = Source()
    search(Or((Header("Subject", "one"), Not(Sent(1, 2)), Header("references", ""))), source)
    assert source.asked_files == []


def test_a_source_knows_which_fields_are_needed() -> None:
    source = Source(kept=False)
    search(Or((Header("Subject", "one"), Header("TO", "x"), Header("X-Other", "y"))), source)
    assert set(map(frozenset, source.asked_names)) == {frozenset(["subject", "to"])}
    for other in (Text("x"), Sent(1, 2)):
        source = Source(kept=False)
        search(Or((Header("Subject", "one"), other)), source)
        assert source.asked_names[0] is None, "all fields, or the day"


def test_days_that_are_kept_need_no_summary() -> None:
    day = sent_day_of(MESSAGES[1][0])
    assert day is not None
    source = Source(undated=[9])
    assert search(Sent(day, None), source) == [1]
    assert source.asked_summaries == [9]
    source = Source(undated=[9])
    assert search(And((Sent(None, day + 1), Header("subject", "two"))), source) == [9]
    assert set(source.asked_summaries) == {1, 9}, "the day rules the others out"


def test_a_needle_elsewhere_in_the_text_says_nothing_of_a_day() -> None:
    day = sent_day_of(MESSAGES[1][0])
    assert day is not None
    query = Or((Not(Sent(day, None)), Header("subject", "anna")))
    assert search(query, Source()) == search(query, Source(kept=False))
    assert 1 not in search(query, Source())


def test_sizes_are_read_only_where_one_is_asked_for() -> None:
    dates, both = Source(unmeasured=True), Source(unmeasured=True)
    assert search(Not(Received(1, None)), dates) == [1, 2]
    assert not dates.asked_sizes
    assert search(Or((Received(3, None), Larger(10_000))), both) == [9]
    assert both.asked_sizes


def test_flags_and_ranges_need_no_summary() -> None:
    source = Source()
    search(And((HasFlag("\\Seen"), InUIDs(((1, 5),)))), source)
    assert source.asked_summaries == []
    source = Source()
    search(And((InUIDs(((1, 5),)), Not(All()))), source)
    assert source.asked_rows == []


def test_text_found_in_a_kept_field_needs_no_file() -> None:
    source = Source()
    assert search(Text("bert"), source) == [2]
    assert 2 not in source.asked_files


def test_a_text_that_is_not_kept_is_sought_in_the_message_alone() -> None:
    source = Source(kept=False)
    assert search(Text("bert"), source) == [2]
    assert source.asked_summaries == [], "no text of a header is made"
    assert set(source.asked_files) == set(MESSAGES)
    search(And((Text("bert"), Header("subject", "hello"))), source)
    assert source.asked_summaries, "but for a key that the header decides"


@pytest.mark.parametrize(
    "query",
    [
        HasFlag("\\Flagged"),
        Not(HasFlag("\\Seen")),
        Header("x-thing", "yes"),
        Not(Header("x-thing", "no")),
        Header("to", "anna"),
        Not(Header("to", "bert")),
        Not(Text("bert")),
        Body("gamma"),
        Not(Body("x")),
    ],
)
def test_messages_that_are_gone_never_match(query: Query) -> None:
    assert 5 in search(query)
    assert 5 not in search(query, Source(gone=[5]))


def test_no_candidates() -> None:
    assert evaluate(Body("x"), [], Source()) == []


def test_needles_do_not_reach_from_one_field_into_another() -> None:
    assert search(Header("from", "test\nsubject")) == []
    assert search(Header("subject", "one\ndate")) == []


@pytest.mark.timeout(60)
def test_a_deep_tree_overflows_nothing() -> None:
    query: Query = HasFlag("\\Seen")
    for level in range(100_000):
        query = Not(query) if level % 2 else Or((query, Not(All())))
    assert search(query) == search(HasFlag("\\Seen"))
    query = Body("alpha")
    for _ in range(50_000):
        query = And((query, All()))
    assert search(query) == [1, 5]


@pytest.mark.timeout(60)
def test_a_wide_tree() -> None:
    assert search(Or(tuple(InUIDs(((number, number),)) for number in range(20_000)))) == [1, 2, 5, 9]


LEAVES = st.sampled_from(
    [
        All(), InUIDs(((2, 5),)), HasFlag("\\Seen"), HasFlag("work"), HasFlag("none"), Larger(60), Smaller(80), Received(1, None),
        Sent(18262, None), Header("subject", "o"), Header("x-thing", ""), Body("alpha"), Text("beta"), Text("anna"),
    ]
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda parts: And(tuple(parts)), st.lists(inner, max_size=3)),
        st.builds(lambda parts: Or(tuple(parts)), st.lists(inner, max_size=3)),
    ),
    max_leaves=12,
)


def naive(query: Query, uid: int) -> bool:
    """The plain meaning of a query."""
    data, flags, date = MESSAGES[uid]
    header = [line.partition(": ") for line in MessageText(data).header.split("\n") if line]
    match query:
        case All():
            return True
        case And(parts):
            return all(naive(part, uid) for part in parts)
        case Or(parts):
            return any(naive(part, uid) for part in parts)
        case Not(part):
            return not naive(part, uid)
        case InUIDs(ranges):
            return any(low <= uid <= high for low, high in ranges)
        case HasFlag(flag):
            return bool(flags & Source().flag_mask(flag))
        case Larger(size):
            return len(data) > size
        case Smaller(size):
            return len(data) < size
        case Received(first, _):
            return date // DAY >= (first or 0)
        case Sent(first, _):
            sent = sent_day_of(data)
            return sent is not None and sent >= (first or 0)
        case Header(name, text):
            return any(field == name.lower() and fold(text) in value for field, _, value in header)
        case Body(text):
            return fold(text) in MessageText(data).body
        case Text(text):
            texts = MessageText(data)
            return any(fold(text) in found for found in (texts.header, texts.body, texts.inner_headers))
    raise AssertionError(query)


@settings(max_examples=choose(100, whole=200), deadline=None)
@given(TREES, st.booleans(), st.booleans(), st.booleans(), st.sets(st.sampled_from(UIDS)))
def test_any_tree_means_what_it_says(
    query: Query, unmeasured: bool, incomplete: bool, kept: bool, undated: set[UID]
) -> None:
    source = Source(unmeasured=unmeasured, incomplete=incomplete, kept=kept, undated=undated)
    assert search(query, source) == [uid for uid in UIDS if naive(query, uid)]
    assert len(source.asked_files) == len(set(source.asked_files))


def test_messages_without_the_needles_are_not_tested_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all messages of a first search have none."""
    tested: list[str] = []
    plain = field_contains

    def counted(text: str, name: str, needle: str) -> bool:
        tested.append(text)
        return plain(text, name, needle)

    query = Or((Header("Subject", "one"), Not(Header("From", "anna"))))
    expected = search(query, Source(kept=False))
    monkeypatch.setattr("mailserver.store.search.field_contains", counted)
    assert search(Header("Subject", "in no message"), Source(kept=False)) == []
    assert tested == []
    assert search(query, Source(kept=False)) == expected == search(query, Source())
    tested.clear()
    # The texts of messages whose lines are not kept say nothing.
    source = Source(kept=False, incomplete=True)
    assert search(Header("Subject", "in no message"), source) == []
    assert set(source.asked_files) == set(MESSAGES)
