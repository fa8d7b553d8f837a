"""SEARCH (RFC 3501 6.4.4) and ESEARCH (RFC 4731) over the memory store."""

from __future__ import annotations

import re
from array import array
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.search import columns as columns_module
from mailserver.imap.search.columns import plan
from mailserver.imap.search.keys import KEYS, MAX_DEPTH
from mailserver.imap.search.parser import LONGEST_TEXT, MAX_KEYS
from mailserver.imap.services import Services
from mailserver.message.encodings import CHARSETS
from mailserver.store.memory import MemoryMailbox, MemorySearchSource
from mailserver.store.memory.messages import KeptMessage
from mailserver.store.query import And, Arrived, Header, InUIDs, Larger, Not, Received, Smaller
from mailserver.store.rows import LARGEST_SIZE
from mailserver.store.search import Search
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE
from tests.corpus import crlf
from tests.fakes import Client
from tests.imap.sessions import MESSAGE, logged_in, put, selected, services

MAIL = (
    # flags, INTERNALDATE, message
    (
        b"\\Seen \\Answered",
        b"01-Feb-1994 12:00:00 +0000",
        (
            b"From: Smith <smith@example.test>\nTo: anna@example.test\nCc: carl@example.test\n"
            b"Bcc: hidden@example.test\nSubject: One\nDate: 31 Jan 1994 23:00:00 -0800\nX-Thing: yes\n\nalpha\n"
        ),
    ),
    (
        b"\\Flagged \\Draft work",
        b"02-Feb-1994 00:00:00 +0000",
        (
            b"From: =?iso-8859-1?q?J=FCrgen?= <j@example.test>\n"
            b"Subject: =?utf-8?q?=D0=9F=D1=80=D0=B8=D0=B2=D0=B5=D1=82?=\nDate: 2 Feb 1994 00:00 +0000\n\nbeta\n"
        ),
    ),
    (b"\\Deleted", b"03-Feb-1994 00:00:00 +0000", b"Subject: soon away\n\n" + b"gamma alpha\n" * 100),
    (
        b"",
        b"04-Feb-1994 23:59:59 +0000",
        b"Subject: two\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw4RwZmVs\n",
    ),
)


@pytest.fixture(scope="module")
def client() -> Client:
    """Messages 1, 2 are old, 3, 4 are \\Recent. UIDs are 1, 3, 4, 5."""
    service = services(imap={"filters": {"unread": ("UNSEEN", "UNDELETED")}})
    writer = logged_in(service)
    for number, (flags, date, message) in enumerate(MAIL):
        if number == 2:
            selected(service).hang_up()
        append(writer, flags, date, message)
        if number == 0:
            append(writer, b"\\Deleted", date, message)
            other = selected(service)
            other.ask(b"e EXPUNGE\r\n")
            other.hang_up()
    return selected(service)


def append(client: Client, flags: bytes, date: bytes, message: bytes) -> None:
    data = crlf(message)
    assert b"OK" in client.ask(b'p APPEND INBOX (%b) "%b" {%d+}\r\n%b\r\n' % (flags, date, len(data), data))


LEFT_OUT = rb"\[EXPUNGEISSUED\] [^\r]*"
"""How a SEARCH ends that lacks messages which another session has expunged (RFC 5530)."""


def found(client: Client, keys: bytes, uid: bytes = b"", done: bytes = b"(?:UID )?SEARCH completed") -> list[int]:
    if b"MODSEQ" in keys:
        client.session.enabled.add("CONDSTORE")
    answer = client.ask(b"t %bSEARCH %b\r\n" % (uid, keys))
    match = re.fullmatch(rb"\* SEARCH((?: \d+)*)\r\nt OK %b\r\n" % done, answer)
    assert match, answer
    return [int(number) for number in match[1].split()]


@pytest.mark.parametrize(
    ("keys", "numbers"),
    [
        (b"ALL", [1, 2, 3, 4]),
        (b"all", [1, 2, 3, 4]),
        (b"ANSWERED", [1]),
        (b"BCC hidden", [1]),
        (b"BEFORE 2-Feb-1994", [1]),
        (b'BEFORE "03-Feb-1994"', [1, 2]),
        (b"BODY ALPHA", [1, 3]),
        (b'BODY ""', [1, 2, 3, 4]),
        (b"CC CARL@", [1]),
        (b"DELETED", [3]),
        (b"DRAFT", [2]),
        (b"FLAGGED", [2]),
        (b"FROM smith", [1]),
        (b'FROM "<smith@example.test>"', [1]),
        (b"HEADER X-Thing YES", [1]),
        (b'HEADER x-thing ""', [1]),
        (b'HEADER Date ""', [1, 2]),
        (b"KEYWORD work", [2]),
        (b"KEYWORD Work", [2]),
        (b"KEYWORD none", []),
        (b"LARGER 1000", [3]),
        (b"NEW", [3, 4]),
        (b"NOT SEEN", [2, 3, 4]),
        (b"OLD", [1, 2]),
        (b"ON 2-Feb-1994", [2]),
        (b"ON 4-feb-1994", [4]),
        (b"OR SEEN DELETED", [1, 3]),
        (b"RECENT", [3, 4]),
        (b"SEEN", [1]),
        (b"SENTBEFORE 1-Feb-1994", [1]),
        (b"SENTON 31-Jan-1994", [1]),
        (b"SAVEDBEFORE 1-Jan-2020", []),
        (b"SAVEDON 1-Jan-2020", []),
        (b"2:3 SAVEDSINCE 1-Jan-2020", [2, 3]),
        (b"SAVEDATESUPPORTED 1", [1]),
        (b"SENTSINCE 1-Feb-1994", [2]),
        (b"SINCE 3-Feb-1994", [3, 4]),
        (b"SMALLER 1000", [1, 2, 4]),
        (b"SUBJECT ONE", [1]),
        (b"TEXT anna", [1]),
        (b"TEXT alpha", [1, 3]),
        (b"TO anna", [1]),
        (b"UID 3:4", [2, 3]),
        (b"UID 2", []),
        (b"UID *", [4]),
        (b"UID 99:*", [4]),
        (b"UNANSWERED", [2, 3, 4]),
        (b"UNDELETED", [1, 2, 4]),
        (b"UNDRAFT", [1, 3, 4]),
        (b"UNFLAGGED", [1, 3, 4]),
        (b"UNKEYWORD work", [1, 3, 4]),
        (b"UNSEEN", [2, 3, 4]),
        (b"2:3", [2, 3]),
        (b"1,4", [1, 4]),
        (b"*", [4]),
        (b"4:2", [2, 3, 4]),
        (b"1:3 NOT 2", [1, 3]),
        # RFC 3501 6.4.4: keys are ANDed, NOT and OR take whole keys
        (b"UNSEEN UNDELETED", [2, 4]),
        (b"(UNSEEN UNDELETED)", [2, 4]),
        (b"NOT (UNSEEN UNDELETED)", [1, 3]),
        (b"OR (1 SEEN) (3 DELETED)", [1, 3]),
        (b"OR OR 1 2 3", [1, 2, 3]),
        (b"NOT NOT 1", [1]),
        (b"NOT RECENT", [1, 2]),
        (b"NOT UID 1:3", [3, 4]),
        (b"OR BODY beta LARGER 1000", [2, 3]),
        (b"SEEN NOT SEEN", []),
        (b"UNSEEN BODY alpha", [3]),
        (b"CHARSET US-ASCII FROM smith", [1]),
        (b'FROM "J\xc3\xbcrgen"', [2]),
        (b"CHARSET UTF-8 FROM {7+}\r\nJ\xc3\xbcRgen", [2]),
        (b'CHARSET iso-8859-1 FROM "j\xfcrgen"', [2]),
        (b'CHARSET "KOI8-R" SUBJECT "\xd0\xd2\xc9\xd7\xc5\xd4"', [2]),
        (b"CHARSET UTF-8 BODY {5+}\r\n\xc3\xa4pfe", [4]),
        (b"CHARSET UTF-8 TEXT {5+}\r\n\xc3\xa4pfe", [4]),
        (b"CHARSET UTF-8 2:4 UNSEEN", [2, 3, 4]),
        (b"CHARSET UTF-8 (2)", [2]),
        (b"NOT MODSEQ 1", []),
        (b"OLDER 86400", [1, 2, 3, 4]),
        (b"YOUNGER 86400", []),
        (b"2:3 NOT YOUNGER 86400", [2, 3]),
        (b"$", []),
        (b"EMAILID M0123456789ab", []),
        (b"NOT EMAILID x", [1, 2, 3, 4]),
        (b"OR THREADID T1 2", [2]),
        (b"FILTER unread", [2, 4]),
        (b'FUZZY TEXT "alphas gamma"', [3]),
        (b"UIDAFTER 3 NOT UIDBEFORE 5", [4]),
    ],
)
def test_keys(client: Client, keys: bytes, numbers: list[int]) -> None:
    uids = [1, 3, 4, 5]
    assert found(client, keys) == numbers
    assert found(client, keys, b"UID ") == [uids[number - 1] for number in numbers]


def test_every_key_is_tested() -> None:
    (mark,) = (mark for mark in test_keys.pytestmark if mark.name == "parametrize")
    tried = {word for keys, _ in mark.args[1] for word in re.findall(r"[A-Z]+", keys.decode("latin-1").upper())}
    assert set(KEYS) <= tried


@pytest.mark.parametrize(
    "keys",
    [
        b"", b"FOO", b"()", b"(ALL", b"ALL)", b"ALL ", b" ALL", b"ALL  ALL", b"NOT", b"NOT ", b"OR ALL", b"OR", b"FROM", b"FROM ", b"LARGER",
        b"LARGER x", b"LARGER -1", b"LARGER 4294967296", b"BEFORE 32-Jan-2000", b"BEFORE 1-Foo-2000", b"BEFORE x", b"ON 1994-02-01",
        b"KEYWORD", b"KEYWORD \\Seen", b"HEADER x", b"UID", b"UID x", b"UID 0", b"0", b"1,,2", b"CHARSET", b"CHARSET UTF-8",
        b"CHARSET UTF-8 ", b'CHARSET UTF-8 FROM "\xff"', b'FROM "\xe4"', b"CHARSET US-ASCII FROM {2+}\r\n\xc3\xa4",
        b"RETURN", b"RETURN ALL", b"RETURN () ", b"RETURN (FOO) ALL", b"RETURN (MIN MAX", b"RETURN (MIN  MAX) ALL", b"RETURN ( MIN) ALL",
        b"RETURN (MIN) RETURN (MAX) ALL", b"ALL CHARSET UTF-8", b"CHARSET UTF-8 CHARSET UTF-8 ALL", b"MODSEQ", b"MODSEQ x", b"HEADER \xff x",
    ],
)  # fmt: skip
def test_wrong_searches_are_bad(client: Client, keys: bytes) -> None:
    answer = client.ask(b"t SEARCH %b\r\n" % keys)
    assert answer.startswith(b"t BAD "), answer
    assert found(client, b"ALL") == [1, 2, 3, 4]


def test_unknown_charsets(client: Client) -> None:
    """RFC 3501 6.4.4 and 7.1: NO [BADCHARSET], with a list of those that are known."""
    for charset in (b"x-unknown", b"zlib", b"unicode_escape", b'"rot 13"'):
        answer = client.ask(b"t SEARCH CHARSET %b ALL\r\n" % charset)
        match = re.match(rb"t NO \[BADCHARSET \(([^()]+)\)\] ", answer)
        assert match, answer
        assert {"US-ASCII", "UTF-8"} <= set(match[1].decode().split())
        assert all(name.lower() in CHARSETS for name in match[1].decode().split())


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        # RFC 4731 3.1
        (b"SEARCH RETURN (MIN COUNT) UNSEEN", b'(TAG "t") MIN 2 COUNT 3'),
        (b"SEARCH RETURN () UNSEEN", b'(TAG "t") ALL 2:4'),
        (b"SEARCH RETURN (ALL) OR 1 3:4", b'(TAG "t") ALL 1,3:4'),
        (b"UID SEARCH RETURN (MIN MAX ALL COUNT) UNSEEN", b'(TAG "t") UID MIN 3 MAX 5 ALL 3:5 COUNT 3'),
        (b"uid search return (all) all", b'(TAG "t") UID ALL 1,3:5'),
        (b"SEARCH RETURN (MAX) CHARSET UTF-8 SEEN", b'(TAG "t") MAX 1'),
        # nothing found: no MIN, MAX, ALL; COUNT is 0
        (b"SEARCH RETURN (MIN MAX ALL COUNT) KEYWORD none", b'(TAG "t") COUNT 0'),
        (b"SEARCH RETURN (MIN) KEYWORD none", b'(TAG "t")'),
        (b"UID SEARCH RETURN () BODY nowhere", b'(TAG "t") UID'),
    ],
)
def test_esearch(client: Client, command: bytes, answer: bytes) -> None:
    assert client.ask(b"t %b\r\n" % command).split(b"\r\n")[0] == b"* ESEARCH " + answer


def test_bounds(client: Client) -> None:
    deep = b"(" * (MAX_DEPTH - 1) + b"ALL" + b")" * (MAX_DEPTH - 1)
    assert found(client, deep) == [1, 2, 3, 4]
    assert client.ask(b"t SEARCH %b\r\n" % (b"(" * 100 + b"ALL" + b")" * 100)).startswith(b"t BAD ")
    assert client.ask(b"t SEARCH %b\r\n" % (b"(" * 2000)).startswith(b"t BAD ")
    assert client.ask(b"t SEARCH %bALL\r\n" % (b"NOT " * 100)).startswith(b"t BAD ")
    assert client.ask(b"t SEARCH %bALL\r\n" % (b"OR ALL " * 100)).startswith(b"t BAD ")
    found(client, b"ALL")
    assert found(client, b" ".join([b"ALL"] * MAX_KEYS)) == [1, 2, 3, 4]
    assert client.ask(b"t SEARCH %b\r\n" % b" ".join([b"ALL"] * (MAX_KEYS + 1))).startswith(b"t NO [LIMIT]")
    long = b"x" * (LONGEST_TEXT + 1)
    assert client.ask(b"t SEARCH BODY {%d+}\r\n%b\r\n" % (len(long), long)).startswith(b"t NO [LIMIT]")
    assert found(client, b"BODY {%d+}\r\n%b" % (LONGEST_TEXT, long[1:])) == []


def test_it_needs_a_selected_mailbox() -> None:
    assert b"t BAD" in logged_in(services()).ask(b"t SEARCH ALL\r\n")


def test_an_empty_mailbox() -> None:
    client = selected(services())
    assert found(client, b"ALL") == []
    assert found(client, b"NEW") == []
    assert found(client, b"OLD BODY x") == []
    assert found(client, b"UID 1:*") == []
    assert found(client, b"1") == []
    assert found(client, b"1:*") == []
    assert found(client, b"NOT 1:*") == []


def test_numbers_beyond_the_last_message_match_nothing(client: Client) -> None:
    """RFC 3501 9 advises BAD; but a search that finds nothing is an answer, Dovecot's and what ImapTest demands."""
    for keys, numbers in ((b"5", []), (b"1000", []), (b"3:5", [3, 4]), (b"2,9", [2]), (b"9:*", [4]), (b"NOT 2:9", [1])):
        assert found(client, keys) == numbers, keys


def test_addresses_are_found_as_the_envelope_has_them() -> None:
    """RFC 3501 6.4.4: FROM is "the specified string in the envelope structure's FROM field"; RFC 5322 4.4: comments."""
    client = selected(services())
    put(
        client,
        message=b"From: <joe (no)@ (one) b.test>\r\nTo: ann @b.test (x),\r\n c@d.test\r\nX-To: e @f.test\r\n\r\nx\r\n",
    )
    client.ask(b"t NOOP\r\n")
    for keys in (b"FROM joe@b.test", b"TO ann@b.test", b'FROM "(one)"', b"TO c@d.test", b"TEXT joe@b.test"):
        assert found(client, keys) == [1], keys
    for keys in (b"TO joe@b.test", b"HEADER X-To e@f.test"):
        assert found(client, keys) == [], keys


def test_flags_and_ranges_ask_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=5)
    asked: list[Any] = []
    searching = MemoryMailbox.start_search

    def recorded(self: MemoryMailbox, query: Any, candidates: Any) -> Any:
        asked.append(list(candidates))
        return searching(self, query, candidates)

    monkeypatch.setattr(MemoryMailbox, "start_search", recorded)
    client.ask(b"c STORE 2,4 +FLAGS (\\Seen)\r\n")
    assert found(client, b"UNSEEN NOT DELETED UID 1:* 2:5 UNKEYWORD a") == [3, 5]
    assert asked == []
    assert found(client, b"SEEN SUBJECT one") == [2, 4]
    assert asked == [[2, 4]], "only what memory lets through is asked for"


def test_searches_of_files_go_in_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.store.search.STEP", 0.0)
    client = selected(services(), messages=410)
    drains = client.channel.drains
    assert found(client, b"BODY body") == list(range(1, 411))
    assert client.channel.drains - drains >= 3


def test_searches_of_large_files_go_in_more_hops(monkeypatch: pytest.MonkeyPatch) -> None:
    client = logged_in(services())
    large = MESSAGE + b"x" * 600_000
    for text in (MESSAGE, large, large, large, large, MESSAGE, MESSAGE, large * 5, large, MESSAGE):
        put(client, message=text)
    client.ask(b"s SELECT INBOX\r\n")
    read: list[int] = []
    steps: list[list[int]] = []
    one = Search.step
    sources = MemorySearchSource.sources

    def step(self: Search) -> Any:
        read.clear()
        found = one(self)
        steps.append(list(read))
        return found

    def recorded(self: Any, uids: Any) -> Any:
        for uid, data in sources(self, uids):
            read.append(uid)
            yield uid, data

    monkeypatch.setattr(Search, "step", step)
    monkeypatch.setattr(MemorySearchSource, "sources", recorded)
    monkeypatch.setattr("mailserver.store.search.STEP", 0.0)
    assert found(client, b"BODY body") == list(range(1, 11))
    assert [uid for step in steps for uid in step] == list(range(1, 11)), "each is read once"
    assert all(len(step) <= 1 for step in steps)
    assert len([step for step in steps if not step]) > 20, "a hop may end within a message"
    steps.clear()
    assert found(client, b"BODY body TEXT xx NOT BODY z") == [2, 3, 4, 5, 8, 9]


def test_too_many_texts_for_so_much_mail_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.imap.search.evaluation.MAX_COMPARED", 4 << 20)
    monkeypatch.setattr("mailserver.store.search.STEP", 0.0)
    client = logged_in(services())
    for _ in range(3):
        put(client, message=MESSAGE + b"x" * 500_000)
    client.ask(b"s SELECT INBOX\r\n")
    keys = b" ".join(b"OR BODY absent%d" % number for number in range(29)) + b" BODY xxx"
    assert found(client, b" ".join([b"BODY x"] * 500)) == [1, 2, 3], "one text, however often it is asked for"
    assert client.ask(b"a SEARCH " + keys + b"\r\n").startswith(b"a NO [LIMIT] ")
    assert found(client, b"BODY x") == [1, 2, 3]


def test_a_thousand_keys_are_a_few_facts() -> None:
    client = selected(services(), messages=5)
    keys = [
        kind
        for number in range(200)
        for kind in (
            Larger(number),
            Smaller(9000 + number),
            Received(100 + number % 9, 900 + number),
            Received(None, 990),
            Arrived(number, None),
            Arrived(None, 10**9 + number),
        )
    ]
    how = plan(client.session.view, And((*keys, InUIDs(((2, 4),)), Not(InUIDs(((3, 3),))), InUIDs(((1, 3), (5, 5))))))
    assert how is not None
    assert how.facts == [Larger(199), Smaller(9000), Received(108, 900), Arrived(199, 10**9)]
    assert how.ranges == [(1, 2)]


def test_a_client_that_goes_while_searching() -> None:
    client = selected(services(), messages=210)
    client.channel.ended = True
    client.send(b"t SEARCH BODY body\r\n")
    assert client.done
    assert not client.channel.bugs


def test_messages_that_another_session_expunged() -> None:
    service = services()
    client = selected(service, messages=3)
    other = selected(service)
    other.ask(b"c STORE 2 +FLAGS (\\Deleted)\r\n")
    other.ask(b"e EXPUNGE\r\n")
    client.ask(b"f FETCH 1 UID\r\n")
    for keys in (b"UNSEEN", b"BODY body", b"SUBJECT one", b"OR UNSEEN BODY body"):
        assert found(client, keys, done=LEFT_OUT) == [1, 3]
    assert b"* 2 EXPUNGE\r\n" in client.ask(b"n NOOP\r\n")
    assert found(client, b"UNSEEN") == [1, 2]
    assert found(client, b"BODY body", b"UID ") == [1, 3]


def test_messages_that_another_process_has_expunged_are_told_after_the_search() -> None:
    """The columns do not know it yet; what cannot be read, and exists, is not expunged."""
    client = selected(services(), messages=3)
    mailbox = client.session.mailbox.live.mailbox
    mailbox.expunge([2], only_deleted=False)
    assert found(client, b"BODY body", done=LEFT_OUT) == [1, 3]
    assert b"* 2 EXPUNGE\r\n" in client.ask(b"n NOOP\r\n")
    assert found(client, b"BODY body") == [1, 2]


def test_a_message_that_cannot_be_read_is_not_called_expunged(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=3)
    sources = MemorySearchSource.sources
    monkeypatch.setattr(
        MemorySearchSource, "sources", lambda self, uids: ((uid, data) for uid, data in sources(self, uids) if uid != 2)
    )
    assert found(client, b"BODY body") == [1, 3]


WORDS = st.sampled_from(
    [b"ALL", b"NOT", b"OR", b"(", b")", b" ", b"SEEN", b"FROM", b"a", b'"', b"1", b"*", b":", b",", b"UID", b"LARGER", b"ON", b"1-Jan-2000", b"RETURN", b"CHARSET", b"UTF-8", b"{1+}\r\nx", b"HEADER"]
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, max_size=14).map(b"".join))
def test_any_search_gets_one_answer(keys: bytes) -> None:
    client = selected(services(), messages=1)
    answer = client.ask(b"t SEARCH %b\r\nu NOOP\r\n" % keys)
    assert len(re.findall(rb"(?m)^t (?:OK|NO|BAD) ", answer)) == 1
    assert answer.count(b"u OK NOOP completed\r\n") == 1


@pytest.mark.parametrize("uid", [b"", b"UID "])
@pytest.mark.parametrize(
    "keys", [b"ALL", b"UNSEEN", b"1:4,6:20", b"SUBJECT one", b"SINCE 1-Jan-1990", b"NOT 3,7", b"5"]
)
def test_a_large_mailbox_is_searched_in_slices(keys: bytes, uid: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=23)
    client.ask(b"c STORE 2,4,11:13 +FLAGS (\\Seen)\r\n")
    whole = client.ask(b"t %bSEARCH %b\r\n" % (uid, keys))
    extended = client.ask(b"t %bSEARCH RETURN (MIN MAX ALL COUNT) %b\r\n" % (uid, keys))
    for size in (1, 3, 10, 23):
        monkeypatch.setattr("mailserver.imap.search.columns.SLICE", size)
        monkeypatch.setattr("mailserver.imap.search.results.SLICE", size)
        drains = client.channel.drains
        assert client.ask(b"t %bSEARCH %b\r\n" % (uid, keys)) == whole
        slices = 1 if keys == b"5" else 20 // size
        assert client.channel.drains - drains >= slices - 1, "others have their turn in between"
        assert client.ask(b"t %bSEARCH RETURN (MIN MAX ALL COUNT) %b\r\n" % (uid, keys)) == extended


def test_sizes_and_dates_are_known_without_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    client = logged_in(services())
    for number, size in enumerate((0, 100, 200)):
        append(client, b"", b"%02d-Feb-1994 12:00:00 +0000" % (number + 1), MESSAGE + b"x" * size)
    client.ask(b"s SELECT INBOX\r\n")

    def start_search(self: Any, query: Any, candidates: Any) -> Any:
        raise AssertionError("the store is asked")

    monkeypatch.setattr(MemoryMailbox, "start_search", start_search)
    size = len(crlf(MESSAGE))
    assert found(client, b"LARGER %d" % size) == [2, 3]
    assert found(client, b"LARGER %d SMALLER %d" % (size, size + 200)) == [2]
    assert found(client, b"SMALLER %d" % size) == []
    assert found(client, b"SMALLER %d" % (size + 1)) == [1]
    assert found(client, b"SINCE 2-Feb-1994") == [2, 3]
    assert found(client, b"BEFORE 2-Feb-1994") == [1]
    assert found(client, b"ON 2-Feb-1994 UNSEEN 1:3") == [2]
    assert found(client, b"SINCE 4-Feb-1994") == []


def measured(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The UIDs of each reading of sizes and dates."""
    asked: list[list[int]] = []
    measure = MemoryMailbox.measure

    def recorded(self: MemoryMailbox, uids: Any, *, only_dates: bool) -> Any:
        asked.append(list(uids))
        rows = measure(self, uids)
        return [evolve(row, size=UNKNOWN_SIZE) for row in rows] if only_dates else rows

    monkeypatch.setattr(MemoryMailbox, "measure", recorded)
    return asked


def unaskable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryMailbox, "start_search", lambda *_: pytest.fail("the store is asked"))


def dated(service: Services) -> Client:
    """A client with four messages of 1 to 4 February 1994."""
    client = logged_in(service)
    for number in range(1, 5):
        append(client, b"", b"%02d-Feb-1994 12:00:00 +0000" % number, MESSAGE)
    client.ask(b"s SELECT INBOX\r\n")
    return client


def test_only_messages_without_a_date_are_read_and_once_for_all_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    client = dated(service)
    other = selected(service)
    unaskable(monkeypatch)
    asked = measured(monkeypatch)
    columns = client.session.mailbox.live.columns
    columns.dates[1] = columns.dates[3] = UNKNOWN_DATE
    assert found(client, b"1:3 BEFORE 3-Feb-1994") == [1, 2]
    assert asked == [[2]], "what another key rules out is not read"
    assert found(client, b"SINCE 2-Feb-1994") == [2, 3, 4]
    assert asked == [[2], [4]]
    assert UNKNOWN_SIZE not in columns.sizes, "no size is forgotten where dates alone are looked at"
    assert found(other, b"ON 4-Feb-1994") == [4]
    assert found(other, b"BEFORE 4-Feb-1994 SINCE 2-Feb-1994") == [2, 3]
    assert asked == [[2], [4]]


def test_a_key_that_is_known_spares_reading_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    client = dated(services())
    asked = measured(monkeypatch)
    columns = client.session.mailbox.live.columns
    columns.sizes[0] = columns.sizes[1] = columns.sizes[3] = UNKNOWN_SIZE
    assert found(client, b"LARGER 1 SINCE 2-Feb-1994 BEFORE 4-Feb-1994") == [2, 3]
    assert asked == [[2]]


def test_many_dates_are_read_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    client = dated(services())
    asked = measured(monkeypatch)
    columns = client.session.mailbox.live.columns
    for at in range(4):
        columns.dates[at] = UNKNOWN_DATE
    monkeypatch.setattr("mailserver.imap.search.evaluation._MEASURED", 3)
    drains = client.channel.drains
    assert found(client, b"SINCE 2-Feb-1994") == [2, 3, 4]
    assert asked == [[1, 2, 3], [4]]
    assert client.channel.drains > drains, "others have their turn in between"


def test_what_cannot_be_read_is_left_to_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    client = dated(services())
    columns = client.session.mailbox.live.columns
    columns.dates[0] = columns.dates[2] = UNKNOWN_DATE
    monkeypatch.setattr(MemoryMailbox, "measure", lambda *_, only_dates: [])
    asked: list[Any] = []
    searching = MemoryMailbox.start_search

    def recorded(self: MemoryMailbox, query: Any, candidates: Any) -> Any:
        asked.append((query, list(candidates)))
        return searching(self, query, candidates)

    monkeypatch.setattr(MemoryMailbox, "start_search", recorded)
    assert found(client, b"SINCE 2-Feb-1994 SUBJECT one") == [2, 3, 4]
    assert [candidates for _query, candidates in asked] == [[2, 4], [1, 3]]
    assert [[type(part) for part in query.parts] for query, _candidates in asked] == [[Header], [Received, Header]]


def test_a_size_beyond_the_column_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    client = dated(services())
    row = KeptMessage.row

    def large(self: Any, uid: Any) -> Any:
        return evolve(row(self, uid), size=5 << 30) if uid == 2 else row(self, uid)

    monkeypatch.setattr(KeptMessage, "row", large)
    client.session.mailbox.live.columns.sizes[1] = LARGEST_SIZE
    assert found(client, b"LARGER 4294967295") == [2]
    assert found(client, b"SMALLER 4294967295") == [1, 3, 4]


def test_messages_that_another_session_expunged_are_judged_by_their_own_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    client = dated(service)
    other = selected(service)
    other.ask(b"c STORE 2 +FLAGS (\\Deleted)\r\n")
    other.ask(b"e EXPUNGE\r\n")
    client.ask(b"f FETCH 1 UID\r\n")
    unaskable(monkeypatch)
    client.session.mailbox.live.columns.dates[1] = UNKNOWN_DATE
    assert found(client, b"SINCE 3-Feb-1994", done=LEFT_OUT) == [3, 4]
    assert found(client, b"BEFORE 4-Feb-1994", done=LEFT_OUT) == [1, 3]


@pytest.mark.parametrize("number", [0, 1, 7, 8, 9, 100])
@pytest.mark.parametrize("care", [1, 8, 9, 31])
def test_system_flags_are_tested_for_all_messages_at_once(number: int, care: int) -> None:
    flags = array("I", [(at * 7 + (at % 3 == 0) * 32 + (1 << 30)) for at in range(number)])
    for wanted in (mask for mask in range(32) if mask & ~care == 0):
        found = columns_module._with_system_flags(flags, 5, care, wanted)
        assert list(found) == [at for at, mask in enumerate(flags, 5) if mask & care == wanted]
