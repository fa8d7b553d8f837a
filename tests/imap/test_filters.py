"""Filters (RFC 5466): bounds, shared filters, sessions with further extensions, and text that takes the filters' place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.config.model import Auth, Config, Imap, Mail, Server
from mailserver.imap.search import criteria
from mailserver.imap.search.filters import MAX_OCTETS, MAX_PASSES
from tests.fakes import Client
from tests.imap.sessions import selected, services
from tests.store.disk import open_store

SHARED: dict[str, Any] = {"filters": {"Seen": ("SEEN",), "both": ("SEEN", "FLAGGED"), "broken": ("OR SEEN",)}}


def put_filter(client: Client, name: bytes, value: bytes) -> None:
    answer = client.ask(b'f SETMETADATA "" (/private/filters/values/%b {%d+}\r\n%b)\r\n' % (name, len(value), value))
    assert b"f OK" in answer, answer


def flagged(**changes: Any) -> Client:
    """Three messages: the first is \\Seen, the second \\Seen and \\Flagged."""
    client = selected(services(**changes), messages=3)
    assert b"OK" in client.ask(b"a STORE 1:2 FLAGS.SILENT (\\Seen)\r\n")
    assert b"OK" in client.ask(b"a STORE 2 +FLAGS.SILENT (\\Flagged)\r\n")
    return client


def test_private_filters_come_before_those_of_the_administrator() -> None:
    client = flagged(imap=SHARED)
    assert client.ask(b"a SEARCH FILTER seen\r\n").startswith(b"* SEARCH 1 2\r\n")
    assert client.ask(b"a SEARCH FILTER BOTH\r\n").startswith(b"* SEARCH 2\r\n")
    put_filter(client, b"seen", b"UNSEEN")
    assert client.ask(b"a SEARCH FILTER Seen\r\n").startswith(b"* SEARCH 3\r\n")
    assert b"OK" in client.ask(b'a SETMETADATA "" (/private/filters/values/seen NIL)\r\n')
    assert client.ask(b"a SEARCH FILTER Seen\r\n").startswith(b"* SEARCH 1 2\r\n")
    answer = client.ask(b'a GETMETADATA (DEPTH 1) "" /shared/filters/values\r\n')
    assert b'/shared/filters/values/both "SEEN FLAGGED"' in answer
    assert client.ask(b'a SETMETADATA "" (/shared/filters/values/seen "ALL")\r\n').startswith(b"a NO [NOPERM]")


def test_a_filter_that_is_no_criterion_fails_the_search() -> None:
    answer = flagged(imap=SHARED).ask(b"a SEARCH FILTER broken\r\n")
    assert answer == b"a NO [CANNOT] filter broken is not a search criterion: expected a space\r\n"


@pytest.mark.parametrize("loops", [False, True])
def test_filters_lie_within_each_other_up_to_a_bound(loops: bool) -> None:
    client = flagged()
    for level in range(MAX_PASSES):
        put_filter(client, b"f%d" % level, b"SEEN FILTER f%d" % (level + 1))
    put_filter(client, b"f%d" % MAX_PASSES, b"FILTER f0" if loops else b"FLAGGED")
    assert client.ask(b"a SEARCH FILTER f0\r\n").startswith(b"a NO [UNDEFINED-FILTER f%d] " % MAX_PASSES)
    answer = client.ask(b"a SEARCH FILTER f1\r\n")
    assert answer.startswith(b"a NO [UNDEFINED-FILTER f" if loops else b"* SEARCH 2\r\n")


def test_filters_that_name_others_twice_are_bounded_by_the_number_of_keys() -> None:
    client = flagged()
    put_filter(client, b"f0", b"SEEN SEEN SEEN SEEN SEEN")
    for level in range(1, MAX_PASSES):
        put_filter(client, b"f%d" % level, b" ".join([b"FILTER f%d" % (level - 1)] * 5))
    assert client.ask(b"a SEARCH FILTER f%d\r\n" % (MAX_PASSES - 1)).startswith(b"a NO [LIMIT] ")
    assert client.ask(b"a SEARCH FILTER f2\r\n").startswith(b"* SEARCH 1 2\r\n")


def test_the_octets_of_all_filters_are_bounded() -> None:
    client = flagged(imap={"metadata_size": 65536})
    put_filter(client, b"long", b"UID " + b",".join(b"%d" % number for number in range(1000, 9000, 2)))
    one = 4 + 5 * 4000 - 1
    most = MAX_OCTETS // one
    assert client.ask(b"a SEARCH" + b" FILTER long" * most + b"\r\n").startswith(b"* SEARCH\r\n")
    assert client.ask(b"a SEARCH" + b" FILTER long" * (most + 1) + b"\r\n").startswith(b"a NO [LIMIT] ")


def test_annotations_that_cannot_be_read(tmp_path: Path) -> None:
    """They fail the searches that name a filter, which then save nothing (RFC 5182 2.1), and no others."""
    client = flagged(store=open_store(str(tmp_path)))
    put_filter(client, b"x", b"SEEN")
    (path,) = tmp_path.rglob("mailserver-server-metadata")
    path.write_bytes(b"{")
    assert b"a OK" in client.ask(b"a SEARCH RETURN (SAVE) 1:2\r\n")
    assert b"b NO [UNAVAILABLE]" in client.ask(b"b SEARCH RETURN (SAVE) FILTER x\r\n")
    assert client.ask(b"c SEARCH $\r\n").startswith(b"* SEARCH\r\n")
    assert b"d NO [UNAVAILABLE]" in client.ask(b"d SORT (DATE) UTF-8 FILTER x\r\n")
    assert b"e NO [UNAVAILABLE]" in client.ask(b"e THREAD REFERENCES UTF-8 FILTER x\r\n")
    assert client.ask(b"f SEARCH SEEN\r\n").startswith(b"* SEARCH 1 2\r\n")


def test_literals_in_filters() -> None:
    client = flagged()
    put_filter(client, b"x", b"OR SUBJECT {3}\r\none FROM ~{4+}\r\nx) ( FLAGGED")
    assert client.ask(b"a SEARCH FILTER x\r\n").startswith(b"* SEARCH 2\r\n")
    for broken in (b"SUBJECT {9}\r\none", b"SUBJECT {3}\r\none ", b"SUBJECT {3}one", b"SUBJECT {2}\r\none"):
        answer = client.ask(b'a SETMETADATA "" (/private/filters/values/y {%d+}\r\n%b)\r\n' % (len(broken), broken))
        assert answer.startswith(b"a NO [CANNOT] "), broken


def test_a_filter_with_message_numbers_in_a_session_without_them() -> None:
    client = flagged()
    assert b"OK" in client.ask(b"a ENABLE UIDONLY\r\n")
    put_filter(client, b"numbers", b"1:2 SEEN")
    put_filter(client, b"uids", b"UID 1:2 FLAGGED")
    assert client.ask(b"a UID SEARCH FILTER numbers\r\n").startswith(b"a BAD [UIDREQUIRED] ")
    assert client.ask(b"a UID SEARCH FILTER uids\r\n").startswith(b"* SEARCH 2\r\n")


def test_all_texts_of_a_filter_behind_fuzzy_are_fuzzy() -> None:
    client = flagged()
    put_filter(client, b"x", b'SEEN SUBJECT "one nothing"')
    put_filter(client, b"y", b'SUBJECT one FROM "test a"')
    assert client.ask(b"a SEARCH FILTER y\r\n").startswith(b"* SEARCH\r\n")
    assert client.ask(b"a SEARCH FUZZY FILTER y\r\n").startswith(b"* SEARCH 1 2 3\r\n")
    assert client.ask(b"a SEARCH FUZZY FILTER x\r\n").startswith(b"* SEARCH\r\n")


def test_filters_in_a_search_of_several_mailboxes() -> None:
    client = flagged()
    assert b"OK" in client.ask(b"a CREATE other\r\nb UID COPY 2:3 other\r\n")
    put_filter(client, b"first", b"1:2 SEEN UNFLAGGED")
    answer = client.ask(b"a ESEARCH IN (mailboxes other selected) RETURN (COUNT) FILTER first\r\n")
    assert re.findall(rb"MAILBOX (\S+) .*COUNT (\d)", answer) == [(b"INBOX", b"1")], answer
    put_filter(client, b"mine", b"SEEN FLAGGED")
    answer = client.ask(b"a ESEARCH IN (mailboxes (INBOX other)) FILTER mine\r\n")
    assert re.findall(rb"MAILBOX (\S+) .*ALL (\S+)", answer) == [(b"INBOX", b"2"), (b'"other"', b"1")], answer
    assert b"a NO [UNDEFINED-FILTER x] " in client.ask(b"a ESEARCH IN (personal) FILTER x\r\n")


def test_a_filter_with_modseq_is_a_command_that_enables_condstore() -> None:
    client = flagged()
    put_filter(client, b"changed", b"MODSEQ 1")
    assert b"(MODSEQ " in client.ask(b"a SEARCH FILTER changed\r\n")
    assert "CONDSTORE" in client.session.enabled


def test_a_result_that_is_kept_up_to_date_keeps_the_keys_that_it_began_with() -> None:
    client = flagged()
    put_filter(client, b"mine", b"FLAGGED")
    assert b"ESEARCH" in client.ask(b"w SEARCH RETURN (UPDATE ALL) FILTER mine\r\n")
    put_filter(client, b"mine", b"UNFLAGGED")
    assert b'ESEARCH (TAG "w") ADDTO (0 3)' in client.ask(b"a STORE 3 +FLAGS (\\Flagged)\r\n")


KEY = st.sampled_from(
    ["SEEN", "FLAGGED", "UNSEEN", "1", "2:3", "UID 2", "(SEEN FLAGGED)", "SUBJECT one", "FROM {1}\r\na"]
)
CRITERION = st.recursive(
    KEY,
    lambda inner: st.one_of(
        inner.map("NOT {}".format),
        st.tuples(inner, inner).map("OR {0[0]} {0[1]}".format),
        st.tuples(inner, inner).map(" ".join),
        inner.map("({})".format),
    ),
    max_leaves=5,
)


@given(
    value=CRITERION,
    around=st.sampled_from(["{}", "NOT {}", "OR {} 3", "OR 3 {}", "({}) SEEN", "2:3 NOT ({} FLAGGED)", "OR {} {}"]),
)
def test_the_keys_stand_in_the_place_of_the_filter(value: str, around: str) -> None:
    client = flagged()
    put_filter(client, b"x", value.encode())
    direct = client.ask(b"a SEARCH %b\r\n" % around.replace("{}", value).replace("{1}", "{1+}").encode())
    assert client.ask(b"a SEARCH %b\r\n" % around.replace("{}", "FILTER x").encode()) == direct
    assert direct.startswith(b"* SEARCH")


def test_shared_filters_are_checked_with_the_configuration() -> None:
    filters = {"good": ("NOT", "SEEN"), "Good": ("ALL",), "a/b": ("ALL",), "bad": ("SMALLER x",)}
    config = Config(
        Server(hostname="mail.example.test"),
        Mail(root=Path("/")),
        Auth(backends=()),
        (),
        (),
        imap=Imap(filters=filters),
    )
    problems = criteria.check(config)
    assert [(problem.place, problem.value) for problem in problems] == [
        ("[imap] filters", '"Good"'),
        ("[imap] filters", '"a/b"'),
        ("[imap] filters", '"bad"'),
    ]
