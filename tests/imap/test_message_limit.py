"""MESSAGELIMIT and SAVELIMIT (RFC 9738): where they are listed, their code beside others, and that repeated commands do all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.config.check import check
from mailserver.config.model import Auth, Config, Imap, Mail, Server
from mailserver.imap.append.incoming import MOST_MESSAGES
from tests.fakes import Client
from tests.imap.sessions import connect, logged_in, put, selected, services

CODE = re.compile(rb"\[MESSAGELIMIT 3 ([0-9]+)\]")


def limited(messages: int, **settings: Any) -> Client:
    return selected(services(imap={"message_limit": 3, **settings}), messages=messages)


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, set()),
        ({"message_limit": 1000}, {"MESSAGELIMIT=1000"}),
        ({"save_limit": 2000}, {"SAVELIMIT=2000"}),
        ({"message_limit": 1000, "save_limit": 2000}, {"MESSAGELIMIT=1000"}),
    ],
)
def test_where_they_are_listed(settings: dict[str, Any], tokens: set[str]) -> None:
    client = connect(services(imap=settings))
    greeting = client.take()
    client.send(b"l LOGIN anna@example.test secret\r\n")
    for answer in (greeting, client.take()):
        listed = answer.split(b"]")[0].decode("ascii").split()
        assert {token for token in listed if "LIMIT=" in token and not token.startswith("APPEND")} == tokens


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({"message_limit": 1000}, []),
        ({"save_limit": 1000}, []),
        ({"message_limit": 999}, ["[imap] message_limit"]),
        ({"save_limit": 1}, ["[imap] save_limit"]),
        ({"message_limit": 1000, "save_limit": 1000}, ["[imap] save_limit"]),
    ],
)
def test_the_configuration(settings: dict[str, int], places: list[str]) -> None:
    config = Config(
        Server(hostname="mail.example.test"), Mail(root=Path("/")), Auth(backends=()), (), (), imap=Imap(**settings)
    )
    assert [problem.place for problem in check(config) if problem.place.endswith("_limit")] == places


def test_a_code_of_the_command_itself_stays_in_the_tagged_response() -> None:
    client = limited(5)
    assert b"OK" in client.ask(b"a ENABLE QRESYNC\r\n")
    assert b"OK" in client.ask(b"a CREATE target\r\n")
    answer = client.ask(b"a UID STORE 1:5 (UNCHANGEDSINCE 1) +FLAGS (\\Seen)\r\n")
    assert re.search(rb"\* NO \[MESSAGELIMIT 3 3\] [^\r]*\r\na OK \[MODIFIED 3:5\] ", answer), answer
    answer = client.ask(b"a UID MOVE 1:* target\r\n")
    assert b"* VANISHED 3:5\r\n" in answer
    assert re.search(rb"\* NO \[MESSAGELIMIT 3 3\] [^\r]*\r\na OK \[HIGHESTMODSEQ [0-9]+\] ", answer), answer


def test_a_failure_stays_in_the_tagged_response() -> None:
    client = limited(5)
    other = logged_in(client.session.services)
    assert b"OK" in other.ask(b"a SELECT INBOX\r\n")
    assert b"OK" in other.ask(b"a STORE 4 FLAGS.SILENT (\\Deleted)\r\n")
    assert b"OK" in other.ask(b"a EXPUNGE\r\n")
    answer = client.ask(b"a FETCH 1:5 BODY[]\r\n")
    assert re.search(rb"\* NO \[MESSAGELIMIT 3 3\] [^\r]*\r\na NO \[EXPUNGEISSUED\] ", answer), answer
    assert answer.count(b" FETCH (") == 2


def test_messages_that_have_not_changed_do_not_count() -> None:
    client = limited(5)
    answer = client.ask(b"a STORE 1 FLAGS (\\Seen)\r\n")
    modseq = int(re.search(rb"MODSEQ \(([0-9]+)\)", client.ask(b"a FETCH 1 MODSEQ\r\n"))[1])  # type: ignore[index]
    answer = client.ask(b"a UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d)\r\n" % (modseq - 1))
    assert answer.count(b" FETCH (") == 1
    assert answer.endswith(b"a OK UID FETCH completed\r\n")


def test_the_bound_of_append_itself_is_named_where_it_is_lower() -> None:
    client = selected(services(imap={"message_limit": MOST_MESSAGES + 500}))
    answer = client.ask(b"a APPEND INBOX" + b" {1+}\r\nx" * (MOST_MESSAGES + 1) + b"\r\n")
    assert answer.startswith(b"a NO [MESSAGELIMIT %d] " % MOST_MESSAGES)


def test_a_result_that_is_kept_up_to_date_goes_beyond_the_limit() -> None:
    client = limited(5)
    assert client.ask(b"w SEARCH RETURN (UPDATE ALL) UNFLAGGED\r\n").startswith(b'* ESEARCH (TAG "w") ALL 3:5\r\n')
    assert b"OK" in client.ask(b"a STORE 1 +FLAGS.SILENT (\\Flagged)\r\n")
    assert b'ESEARCH (TAG "w") ADDTO (0 1)' in client.ask(b"a STORE 1 -FLAGS (\\Flagged)\r\n")


COUNT = 8
RANGES = st.lists(st.tuples(st.integers(1, COUNT), st.integers(1, COUNT)), min_size=1, max_size=3)


@given(
    ranges=RANGES,
    command=st.sampled_from([b"FETCH %b (FLAGS)", b"STORE %b +FLAGS (x)", b"SEARCH UID %b", b"MOVE %b y"]),
)
def test_commands_repeated_as_the_code_says_do_all(ranges: list[tuple[int, int]], command: bytes) -> None:
    """Each time without the UIDs from the lowest one processed on."""
    client = limited(COUNT)
    assert b"OK" in client.ask(b"a CREATE y\r\n")
    uids = {uid for pair in ranges for uid in range(min(pair), max(pair) + 1)}
    left, rounds = set(uids), 0
    while left:
        answer = client.ask(b"a UID " + command % b",".join(b"%d" % uid for uid in sorted(left)) + b"\r\n")
        code = CODE.search(answer)
        processed = {uid for uid in left if uid >= (int(code[1]) if code else 0)}
        assert len(processed) == min(len(left), 3)
        if b"SEARCH" in command:
            assert answer.startswith(b"* SEARCH %b\r\n" % b" ".join(b"%d" % uid for uid in sorted(processed)))
        elif b"MOVE" not in command:
            assert set(map(int, re.findall(rb"UID ([0-9]+)", answer))) == processed
        left -= processed
        rounds += 1
    assert rounds == -(-len(uids) // 3)
    if b"MOVE" in command:
        assert b"(MESSAGES %d)" % len(uids) in client.ask(b"a STATUS y (MESSAGES)\r\n")


def test_commands_that_name_few_messages_have_no_code() -> None:
    client = limited(3)
    put(client)
    assert b"LIMIT" not in client.ask(b"a FETCH 1:3 (FLAGS)\r\n")
    assert b"LIMIT" not in client.ask(b"a UID STORE 1,3 FLAGS (\\Seen)\r\n")
    assert b"LIMIT" not in client.ask(b"a SEARCH 2:4 NOT SEEN\r\n")
