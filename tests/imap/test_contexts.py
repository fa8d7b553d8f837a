"""UPDATE (RFC 5267): results that are kept up to date, against searches anew after random changes by two sessions."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.progress import ProgressReporter
from mailserver.imap.search import contexts
from mailserver.imap.session import Session
from mailserver.store.query import Query
from tests.fakes import Client
from tests.imap.sessions import logged_in, selected, services
from tests.sweeps import choose

SEARCHES = {
    b"u1": b"UID SEARCH RETURN (UPDATE ALL) UNDELETED",
    b"u2": b"UID SEARCH RETURN (UPDATE ALL) OR FLAGGED SUBJECT 3",
    b"u3": b"UID SEARCH RETURN (UPDATE ALL) UID 3:* NOT SEEN",
    b"u4": b"UID SORT RETURN (UPDATE ALL) (REVERSE SUBJECT ARRIVAL) UTF-8 UNDELETED",
    b"u5": b"UID SORT RETURN (UPDATE ALL) (SUBJECT) UTF-8 OR FLAGGED ANSWERED",
    b"s1": b"SEARCH RETURN (UPDATE ALL) UNDELETED",
    b"s2": b"SORT RETURN (UPDATE ALL) (REVERSE SUBJECT) UTF-8 ALL",
}


def numbers(text: bytes) -> list[int]:
    found: list[int] = []
    for part in text.split(b","):
        low, _, high = part.partition(b":")
        found += range(int(low), int(high or low) + 1)
    return found


class Results:
    """A client's results, changed as the responses say and checked for sense."""

    def __init__(self) -> None:
        self.by_tag: dict[bytes, list[int]] = {}

    def take(self, answer: bytes) -> None:
        for line in answer.split(b"\r\n"):
            assert b"NOUPDATE" not in line
            if match := re.fullmatch(rb'\* ESEARCH \(TAG "(\w+)"\)( UID)?(?: ALL ([0-9:,]+))?', line):
                if match[1] in SEARCHES:
                    self.by_tag[match[1]] = numbers(match[3]) if match[3] else []
            elif match := re.fullmatch(rb'\* ESEARCH \(TAG "(\w+)"\)( UID)? (ADDTO|REMOVEFROM) \((.*)\)', line):
                assert (match[2] is not None) == match[1].startswith(b"u")
                words = match[4].split(b" ")
                for place, text in zip(map(int, words[::2]), words[1::2], strict=True):
                    self._change(match[1], match[3], place, numbers(text))
            elif match := re.fullmatch(rb"\* VANISHED ([0-9:,]+)", line):
                gone_uids = set(numbers(match[1]))
                for result in self.by_tag.values():
                    assert not gone_uids & set(result), "REMOVEFROM comes before VANISHED"
            elif match := re.fullmatch(rb"\* ([0-9]+) EXPUNGE", line):
                gone = int(match[1])
                for tag, result in self.by_tag.items():
                    if tag.startswith(b"s"):
                        assert gone not in result, "REMOVEFROM comes before EXPUNGE"
                        self.by_tag[tag] = [number - (number > gone) for number in result]

    def _change(self, tag: bytes, what: bytes, place: int, these: list[int]) -> None:
        result = self.by_tag[tag]
        if what == b"ADDTO":
            assert not set(these) & set(result)
            if place:
                assert place <= len(result) + 1
                result[place - 1 : place - 1] = these
            else:
                result[:] = sorted(result + these)
        elif place:
            assert result[place - 1 : place - 1 + len(these)] == these
            del result[place - 1 : place - 1 + len(these)]
        else:
            assert set(these) <= set(result)
            result[:] = [number for number in result if number not in these]


def anew(client: Client, command: bytes) -> list[int]:
    # `3:*` with fewer messages is the last one (RFC 3501): results take in what comes from UID 3 on.
    command = command.replace(b"UPDATE ALL", b"ALL").replace(b":*", b":4294967295")
    answer = client.ask(b"x " + command + b"\r\n")
    match = re.search(rb"^\* ESEARCH .* ALL ([0-9:,]+)\r$", answer, re.MULTILINE)
    return numbers(match[1]) if match else []


def put(client: Client, source: random.Random) -> bytes:
    message = b"Subject: %d\r\n\r\n" % source.randrange(6)
    flags = b" ".join(source.sample([b"\\Seen", b"\\Flagged", b"\\Deleted"], source.randrange(3)))
    return client.ask(b"p APPEND INBOX (%b) {%d+}\r\n%b\r\n" % (flags, len(message), message))


def change(client: Client, source: random.Random) -> bytes:
    match source.randrange(8):
        case 0 | 1:
            return put(client, source)
        case 2:
            return client.ask(b"c EXPUNGE\r\n")
        case 3:
            return client.ask(b"c UID EXPUNGE %d:%d\r\n" % (source.randrange(1, 9), source.randrange(9, 30)))
        case 4:
            return client.ask(b"c NOOP\r\n")
    sign, silent = source.choice([b"+", b"-"]), source.choice([b"", b".SILENT"])
    flag = source.choice([b"\\Seen", b"\\Flagged", b"\\Deleted", b"\\Answered"])
    first = source.randrange(1, 20)
    return client.ask(
        b"c UID STORE %d:%d %bFLAGS%b (%b)\r\n" % (first, first + source.randrange(6), sign, silent, flag)
    )


@pytest.mark.parametrize("enabled", [b"", b"QRESYNC", b"UIDONLY", b"IMAP4rev2"])
@settings(max_examples=choose(10, whole=300))
@given(source=st.randoms(use_true_random=False))
def test_results_equal_searches_anew(enabled: bytes, source: random.Random) -> None:
    service = services()
    client, other = logged_in(service), logged_in(service)
    for _ in range(source.randrange(3, 10)):
        put(client, source)
    if enabled:
        client.ask(b"e ENABLE %b\r\n" % enabled)
    results = Results()
    for each in (client, other):
        each.ask(b"s SELECT INBOX\r\n")
    # A client with VANISHED would have to know its numbers by UID.
    searches = {
        tag: command
        for tag, command in SEARCHES.items()
        if tag.startswith(b"u") or enabled not in (b"QRESYNC", b"UIDONLY")
    }
    for tag, command in searches.items():
        results.take(client.ask(b"%b %b\r\n" % (tag, command)))
    assert set(results.by_tag) == set(searches)
    for _ in range(20):
        who = source.choice([client, other])
        answer = change(who, source)
        if who is client:
            results.take(answer)
        match source.randrange(4):
            case 0:
                # Where no EXPUNGE is allowed, but for UIDONLY.
                results.take(
                    client.ask(b"f UID FETCH 1:* FLAGS\r\n" if enabled == b"UIDONLY" else b"f FETCH 1:* FLAGS\r\n")
                )
            case 1:
                results.take(client.ask(b"n NOOP\r\n"))
                for tag, command in searches.items():
                    assert results.by_tag[tag] == anew(client, command), (tag, command)


def test_a_log_that_does_not_go_back_far_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.store.columns.LOG_LIMIT", 2)
    service = services()
    client, other = selected(service, messages=5), selected(service)
    results = Results()
    results.take(client.ask(b"u2 " + SEARCHES[b"u2"] + b"\r\n"))
    for number in (1, 3, 5, 1, 2, 3, 4):
        for sign in (b"+", b"-", b"+"):
            other.ask(b"c STORE %d %bFLAGS (\\Flagged)\r\n" % (number, sign))
    results.take(client.ask(b"n NOOP\r\n"))
    assert results.by_tag[b"u2"] == [1, 2, 3, 4, 5]


def test_updates_come_in_idle() -> None:
    service = services()
    client, other = selected(service, messages=2), selected(service)
    client.ask(b"b SEARCH RETURN (UPDATE COUNT) FLAGGED\r\n")
    client.send(b"i IDLE\r\n")
    client.take()
    other.ask(b"a STORE 2 +FLAGS (\\Flagged)\r\n")
    client.settle()
    assert client.take() == b'* 2 FETCH (FLAGS (\\Flagged \\Recent))\r\n* ESEARCH (TAG "b") ADDTO (0 2)\r\n'


def test_only_what_has_changed_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    client, other = selected(service, messages=50), selected(service)
    client.ask(b"b UID SEARCH RETURN (UPDATE) OR FLAGGED BODY body\r\n")
    client.ask(b"c UID SEARCH RETURN (UPDATE) BODY body\r\n")
    asked: list[int] = []
    mailbox = client.session.selected.live.mailbox
    start = mailbox.start_search
    monkeypatch.setattr(
        mailbox, "start_search", lambda query, uids: (asked.append(len(uids)), start(query, uids))[1], raising=False
    )
    other.ask(b"a STORE 7 +FLAGS (\\Flagged)\r\n")
    client.ask(b"n NOOP\r\n")
    assert asked == [1]


def refused(answer: bytes, tag: bytes) -> bool:
    return b'* NO [NOUPDATE "%b"] ' % tag in answer and b"%b OK " % tag in answer


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=4)
    for number in range(contexts.MAX_CONTEXTS):
        assert b"NOUPDATE" not in client.ask(b"t%d UID SEARCH RETURN (UPDATE) ALL\r\n" % number)
    answer = client.ask(b"more UID SEARCH RETURN (UPDATE COUNT) ALL\r\n")
    assert refused(answer, b"more")
    assert b"COUNT 4" in answer
    assert client.ask(b'a CANCELUPDATE "t0" "t1"\r\n').endswith(b"a OK CANCELUPDATE completed\r\n")
    assert client.ask(b'a CANCELUPDATE "t2" "t0"\r\n').startswith(b"a NO ")
    monkeypatch.setattr(contexts, "MAX_SORTED", 3)
    assert refused(client.ask(b"sorted SORT RETURN (UPDATE) (DATE) UTF-8 ALL\r\n"), b"sorted")
    assert b"NOUPDATE" not in client.ask(b"few SORT RETURN (UPDATE) (DATE) UTF-8 1:3\r\n")
    monkeypatch.setattr(contexts, "MAX_RESULTS", 4 * (contexts.MAX_CONTEXTS - 2) + 3)
    assert refused(client.ask(b"full UID SEARCH RETURN (UPDATE) ALL\r\n"), b"full")
    assert refused(client.ask(b"recent SEARCH RETURN (UPDATE) NEW\r\n"), b"recent")


def test_a_result_that_grows_over_its_bound_is_no_longer_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=3)
    client.ask(b"b UID SORT RETURN (UPDATE) (DATE) UTF-8 FLAGGED\r\n")
    monkeypatch.setattr(contexts, "MAX_SORTED", 2)
    assert b'* ESEARCH (TAG "b") UID ADDTO (1 1:2)\r\n' in client.ask(b"a STORE 1:2 +FLAGS (\\Flagged)\r\n")
    assert b'* NO [NOUPDATE "b"] ' in client.ask(b"a STORE 3 +FLAGS (\\Flagged)\r\n")
    assert b"ESEARCH" not in client.ask(b"a STORE 3 -FLAGS (\\Flagged)\r\n")


def test_updates_end_with_the_mailbox() -> None:
    service = services()
    client = selected(service, messages=2)
    client.ask(b"b UID SEARCH RETURN (UPDATE) FLAGGED\r\n")
    client.ask(b"a SELECT INBOX\r\n")
    assert b"ESEARCH" not in client.ask(b"a STORE 1 +FLAGS (\\Flagged)\r\n")
    assert b"b OK" in client.ask(b"b UID SEARCH RETURN (UPDATE) FLAGGED\r\n")


@pytest.mark.parametrize(
    "keys",
    [
        b"RECENT",
        b"NOT OLD",
        b"UID *",
        b"UID 9:*",
        b"YOUNGER 60",
        b"NOT OLDER 60",
        b"MODSEQ 1",
        b"SAVEDSINCE 1-Jan-2020",
        b"EMAILID M1",
    ],
)
def test_keys_that_concern_more_than_new_messages_and_flags(keys: bytes) -> None:
    client = selected(services(), messages=2)
    assert refused(client.ask(b"b SEARCH RETURN (UPDATE COUNT) OR SEEN (%b)\r\n" % keys), b"b")
    assert b"NOUPDATE" not in client.ask(b"c SEARCH RETURN (COUNT) %b\r\n" % keys)


def test_many_contexts_and_one_changed_message(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    client, other = selected(service, messages=300), selected(service)
    for number in range(contexts.MAX_CONTEXTS):
        client.ask(b"t%d UID SEARCH RETURN (UPDATE) ALL UNDRAFT OR UNSEEN SUBJECT one\r\n" % number)
    looked_at: list[object] = []
    find = contexts.find

    async def counted(session: Session, query: Query, reporter: ProgressReporter) -> tuple[Sequence[int], bool]:
        looked_at.append(query)
        return await find(session, query, reporter)

    monkeypatch.setattr(contexts, "find", counted)
    for _ in range(10):
        client.ask(b"n NOOP\r\n")
    assert not looked_at
    other.ask(b"a STORE 7 +FLAGS (\\Draft)\r\n")
    for _ in range(10):
        client.ask(b"n NOOP\r\n")
    assert len(looked_at) == contexts.MAX_CONTEXTS
    assert all("ranges=((7, 7),)" in str(query) for query in looked_at)


def test_results_of_many_messages_change_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "SLICE", 7)
    service = services()
    client, other = selected(service, messages=40), selected(service)
    results = Results()
    for tag in (b"u1", b"u2", b"u5", b"s1"):
        results.take(client.ask(b"%b %b\r\n" % (tag, SEARCHES[tag])))
    other.ask(b"a STORE 1:30 +FLAGS.SILENT (\\Flagged)\r\n")
    other.ask(b"a STORE 3:25 +FLAGS.SILENT (\\Deleted)\r\n")
    results.take(client.ask(b"n NOOP\r\n"))
    other.ask(b"a EXPUNGE\r\n")
    results.take(client.ask(b"n NOOP\r\n"))
    for tag, result in results.by_tag.items():
        assert result == anew(client, SEARCHES[tag]), tag
    assert len(results.by_tag[b"u1"]) == 17
