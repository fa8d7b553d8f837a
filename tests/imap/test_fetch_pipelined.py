"""FETCH commands that come one behind the other: what each is answered is what it would be answered alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.commands import fetch
from mailserver.imap.fetch.pipelined import FEW, LONGEST, MOST
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE
from tests.fakes import Client
from tests.imap.sessions import put, selected, services
from tests.sweeps import choose

MESSAGES = 12


def mailbox() -> Client:
    """Some messages with flags and keywords; the last two are \\Recent."""
    service = services()
    with_all = selected(service, messages=MESSAGES - 2)
    for command in (b"STORE 2,4 FLAGS (\\Seen)", b"STORE 3 FLAGS (\\Flagged $Work)", b"CLOSE"):
        assert b"t OK" in with_all.ask(b"t %b\r\n" % command)
    for _ in range(2):
        put(with_all)
    return selected(service)


NUMBERS = st.integers(0, MESSAGES + 1)
FETCHES = st.builds(
    lambda tag, form, number: b"%b %b\r\n" % (tag, form % number),
    st.sampled_from([b"a", b"B2", b"x.y", b"A" * 80, b"a-b", b"+", b""]),
    st.sampled_from(
        [b"FETCH %d (FLAGS)"] * 12
        + [
            b"FETCH %d FLAGS",
            b"FETCH %d (UID FLAGS)",
            b"FETCH %d (FLAGS RFC822.SIZE)",
            b"FETCH %d ENVELOPE",
            b"FETCH 0%d (FLAGS)",
            b"FETCH %d (FLAGS) ",
            b"FETCH %d:* (FLAGS)",
            b"FETCH %d BODY[]",
            b"fetch %d (flags)",
            b"UID FETCH %d (FLAGS)",
            b"STORE %d +FLAGS (\\Deleted)",
            b"STORE %d -FLAGS.SILENT (\\Seen)",
            b"SEARCH %d",
        ]
    ),
    NUMBERS,
)
OTHERS = st.sampled_from([b"n NOOP\r\n", b"e EXPUNGE\r\n", b"FETCH\r\n", b"f FETCH {1+}\r\n1 (FLAGS)\r\n", b"\r\n"])


@settings(max_examples=choose(60, whole=150), deadline=None)
@given(st.lists(st.one_of(FETCHES, FETCHES, FETCHES, OTHERS), max_size=40), st.integers(0, 30))
def test_together_they_are_answered_as_one_by_one(commands: list[bytes], cut: int) -> None:
    gather_in_turn, together = mailbox(), mailbox()
    said = b""
    for command in commands:
        gather_in_turn.send(command)
        said += gather_in_turn.take()
    octets = b"".join(commands)
    together.send(octets[: len(octets) - cut])  # the last one's end comes later
    heard = together.take()
    together.send(octets[len(octets) - cut :] if cut else b"")
    assert heard + together.take() == said


def count(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What has been read as a command by itself from now on."""
    read: list[bytes] = []
    answer_alike = fetch.answer_alike

    def counted(session: Any, plan: Any, tail: bytes) -> None:
        read.append(tail)
        answer_alike(session, plan, tail)

    monkeypatch.setattr(fetch, "answer_alike", counted)
    return read


def test_most_of_them_are_not_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    client = mailbox()
    read = count(monkeypatch)
    numbers = [1 + at % (MESSAGES - 2) for at in range(3 * (MOST + 1))]
    client.send(b"".join(b"p FETCH %d (FLAGS)\r\n" % number for number in numbers))
    answer = client.take()
    assert answer.count(b"p OK FETCH completed\r\n") == len(numbers)
    assert [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"*")] == numbers
    assert len(read) == 3


@pytest.mark.parametrize("size", [LONGEST, LONGEST + 1])
def test_what_they_ask_for_is_bounded(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mailbox()
    read = count(monkeypatch)
    items = b"(" + b" ".join([b"FLAGS"] * (size // 6)) + b")"
    items = items[:-1] + b" UID" * ((size - len(items)) // 4) + b")"
    client.send(b"p FETCH 1 %b\r\n" % items * 20)
    assert client.take().count(b"p OK") == 20
    assert (len(read) == 1) == (len(items) <= LONGEST)


def test_where_most_cannot_be_answered_together_few_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    client = mailbox()
    looked: list[int] = []
    peek = client.session.input.peek_run

    def counted(line: Any, run: Any) -> Any:
        found = peek(line, run)
        looked.append(len(found))
        return found

    monkeypatch.setattr(client.session.input, "peek_run", counted)
    client.send(b"p FETCH %d (FLAGS)\r\n" % MESSAGES * 100)
    answer = client.take()
    assert answer.count(b"* %d FETCH (FLAGS (\\Recent))\r\np OK" % MESSAGES) == 100
    assert max(looked) == FEW


def test_news_of_others_is_told_behind_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    client, other = selected(service, messages=5), selected(service)
    client.ask(b"n NOOP\r\n")
    assert b"t OK" in other.ask(b"t STORE 5 +FLAGS (\\Flagged)\r\n")
    read = count(monkeypatch)
    client.send(b"p FETCH 1 (FLAGS)\r\n" * 3)
    answer = client.take()
    assert answer.index(b"* 5 FETCH (FLAGS (\\Flagged") < answer.index(b"p OK")
    assert answer.count(b"p OK") == 3
    assert read


def test_where_another_session_has_expunged_each_number_still_means_the_same_message() -> None:
    service = services()
    client, other = selected(service, messages=5), selected(service)
    assert b"t OK" in other.ask(b"t STORE 4 +FLAGS (\\Flagged)\r\n")
    assert b"t OK" in other.ask(b"t STORE 2 +FLAGS (\\Deleted)\r\n")
    client.ask(b"n NOOP\r\n")
    assert b"* 2 EXPUNGE" in other.ask(b"e EXPUNGE\r\n")
    # EXPUNGE must not be told behind a FETCH (RFC 3501 7.4.1).
    client.send(b"".join(b"p FETCH %d (UID)\r\n" % number for number in (1, 3, 4, 5)))
    assert client.take() == b"".join(
        b"* %d FETCH (UID %d)\r\np OK FETCH completed\r\n" % (number, number) for number in (1, 3, 4, 5)
    )
    client.send(b"".join(b"p FETCH %d (FLAGS)\r\n" % number for number in (3, 4)))
    assert client.take().count(b"\\Flagged") == 1


def test_while_others_are_known_to_have_changed_something_each_is_read_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = mailbox()
    read: list[bytes] = []
    answer_alike = fetch.answer_alike

    def poked(session: Any, plan: Any, tail: bytes) -> None:
        read.append(tail)
        session.mailbox.live.poked()
        answer_alike(session, plan, tail)

    monkeypatch.setattr(fetch, "answer_alike", poked)
    client.send(b"p FETCH 1 (FLAGS)\r\n" * 4)
    assert client.take().count(b"p OK") == 4
    assert len(read) == 3  # nothing stands behind the fourth


def test_what_is_asked_by_uid_is_not_taken_for_what_is_asked_by_number() -> None:
    client = mailbox()
    client.send(b"a UID FETCH 1 (FLAGS)\r\n" + b"b FETCH 2 (FLAGS)\r\n" * 2)
    answer = client.take()
    assert answer.count(b"UID 1") == answer.count(b"UID") - 1 == 1  # and "UID FETCH completed"
    assert answer.count(b"b OK") == 2


def test_a_size_or_date_that_is_not_known_is_found_out() -> None:
    client = mailbox()
    asked = b"".join(b"p FETCH %d (RFC822.SIZE INTERNALDATE)\r\n" % number for number in (1, 2, 3))
    client.send(asked)
    known = client.take()
    columns = client.session.mailbox.live.columns
    columns.sizes[1], columns.dates[2] = UNKNOWN_SIZE, UNKNOWN_DATE
    client.send(asked)
    assert client.take() == known
