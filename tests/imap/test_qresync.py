"""QRESYNC: histories that are lost, numbers that match, and what is sent when (RFC 7162 3.2)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import StoreUnavailable
from mailserver.imap.qresync import highest_match
from mailserver.imap.wire.sequence_set import runs
from mailserver.message.render import summarise
from mailserver.store.interfaces import Bounds
from mailserver.store.memory import MemoryStore
from mailserver.store.view import View
from tests.fakes import Client
from tests.imap.resyncing import numbers_of
from tests.imap.sessions import connect, put, selected, services
from tests.store.test_columns import make


def forgetful() -> MemoryStore:
    """Remembers one expunge in each mailbox."""
    return MemoryStore(summarise, bounds=Bounds(expunges=1))


def aware(service: object, mailbox: str = "INBOX") -> Client:
    client = connect(service)  # type: ignore[arg-type]
    client.take()
    client.ask(b"l LOGIN anna@example.test secret\r\ne ENABLE QRESYNC\r\n")
    client.ask(b"s SELECT %b\r\n" % mailbox.encode())
    return client


def validity(client: Client) -> int:
    return client.session.mailbox.live.columns.uid_validity


def vanished(answer: bytes) -> list[int]:
    return [
        uid
        for uids in re.findall(rb"\* VANISHED \(EARLIER\) ([0-9:,]+)\r\n", answer)
        for uid in numbers_of(uids.decode())
    ]


def fetched(answer: bytes) -> list[int]:
    return [int(uid) for uid in re.findall(rb" FETCH \(UID (\d+)", answer)]


def expunge(client: Client, *uids: int) -> None:
    for uid in uids:
        client.ask(b"x UID STORE %d +FLAGS.SILENT (\\Deleted)\r\ny UID EXPUNGE %d\r\n" % (uid, uid))


def test_the_rfc_s_examples_of_matching_numbers() -> None:
    """3.2.5.2: only UIDs divisible by three are left, and no expunge is remembered."""
    service = services(store=forgetful())
    writer = selected(service, messages=30)
    expunge(writer, *(uid for uid in range(1, 31) if uid % 3))
    client = aware(service)
    known = b"1:29"
    plain = client.ask(b"t SELECT INBOX (QRESYNC (%d 1 %b))\r\n" % (validity(client), known))
    assert vanished(plain) == [uid for uid in range(1, 30) if uid % 3]
    for pairs, first in (
        (b"(3,5 9,15)", 16),
        (b"(3,5,9:10 9,15,27,30)", 31),
        (b"(3,6 9,19)", 10),  # the sixth message has another UID
        (b"(3,5,11 9,15,40)", 16),  # there is no eleventh message
        (b"(1 1)", 1),
    ):
        answer = client.ask(b"t SELECT INBOX (QRESYNC (%d 1 %b %b))\r\n" % (validity(client), known, pairs))
        assert vanished(answer) == [uid for uid in range(first, 30) if uid % 3], pairs
        assert fetched(answer) == fetched(plain), "flags are told of all known messages"
        answer = client.ask(b"t SELECT INBOX (QRESYNC (%d 1 %b))\r\n" % (validity(client), pairs))
        assert vanished(answer) == [uid for uid in range(first, 31) if uid % 3]


@given(
    st.sets(st.integers(1, 60), max_size=40),
    st.lists(st.tuples(st.integers(1, 70), st.integers(0, 6)), max_size=12),
)
def test_the_highest_match_is_the_highest(uids: set[int], steps: list[tuple[int, int]]) -> None:
    """Compared with trying each pair."""
    present = sorted(uids)
    numbers, claimed, seq, uid = [], [], 0, 0
    for step, gap in steps:
        seq += 1 + step % 4
        uid = max(uid + 1, present[seq - 1] if gap < 4 and seq <= len(present) else uid + 1 + gap)
        numbers.append(seq)
        claimed.append(uid)
    best = max(
        (u for s, u in zip(numbers, claimed, strict=True) if s <= len(present) and present[s - 1] == u), default=0
    )
    assert highest_match(View(make(*present)), list(runs(numbers)), list(runs(claimed))) == best


def test_a_modseq_of_another_history_gets_everything() -> None:
    """As after a backup was restored: the client has seen modseqs that the mailbox has not had yet."""
    service = services()
    writer = selected(service, messages=4)
    expunge(writer, 2)
    client = aware(service)
    future = client.session.view.complete_modseq + 1
    for command in (
        b"SELECT INBOX (QRESYNC (%d %d))" % (validity(client), future),
        b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)" % future,
    ):
        answer = client.ask(b"t %b\r\n" % command)
        assert vanished(answer) == [2]
        assert fetched(answer) == [1, 3, 4]
    # Without VANISHED the client asks for what is newer, and nothing is.
    assert fetched(client.ask(b"t UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d)\r\n" % future)) == []


def test_the_last_message_vanishes_from_a_set_that_ends_in_a_star() -> None:
    """`*` is the last UID that there was: the client knows it, although it is gone."""
    service = services()
    writer = selected(service, messages=3)
    client = aware(service)
    before = client.session.view.complete_modseq
    client.ask(b"u UNSELECT\r\n")
    expunge(writer, 3, 2, 1)
    client.ask(b"s SELECT INBOX\r\n")
    assert vanished(client.ask(b"t UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)\r\n" % before)) == [1, 2, 3]
    assert vanished(client.ask(b"t UID FETCH 3:* (FLAGS) (CHANGEDSINCE %d VANISHED)\r\n" % before)) == [3]


def test_earlier_does_not_speak_of_messages_that_the_client_counts() -> None:
    """3.2.10: they are in its sequence numbers, so that VANISHED without EARLIER reports them."""
    service = services()
    writer = selected(service, messages=4)
    client = aware(service)
    before = client.session.view.complete_modseq
    expunge(writer, 2)
    answer = client.ask(b"t UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)\r\n" % before)
    assert b"(EARLIER)" not in answer
    assert b"* VANISHED 2\r\n" in answer
    answer = client.ask(b"t UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)\r\n" % before)
    assert vanished(answer) == [2]


def test_nothing_is_asked_of_the_store_for_a_client_that_missed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    selected(service, messages=2)
    client = aware(service)
    modseq = client.session.view.complete_modseq
    monkeypatch.setattr("mailserver.imap.qresync.write_vanished", lambda *_args, **_more: pytest.fail("asked"))
    assert b"VANISHED" not in client.ask(b"t SELECT INBOX (QRESYNC (%d %d 1:2))\r\n" % (validity(client), modseq))


def test_a_resynchronization_that_fails_leaves_no_mailbox_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services(store=forgetful())
    writer = selected(service, messages=4)
    expunge(writer, 1, 2)
    client = aware(service)

    def unavailable(*_args: object) -> None:
        raise StoreUnavailable

    monkeypatch.setattr("mailserver.imap.qresync._missing", unavailable)
    answer = client.ask(b"t SELECT INBOX (QRESYNC (%d 1))\r\n" % validity(client))
    assert b"\r\nt NO [UNAVAILABLE] " in answer
    assert client.session.selected is None
    assert client.ask(b"u FETCH 1 FLAGS\r\n").startswith(b"u BAD ")


def test_idle_has_vanished_and_the_modseq_to_note() -> None:
    service = services()
    writer = selected(service, messages=3)
    client = aware(service)
    assert client.ask(b"i IDLE\r\n") == b"+ idling\r\n"
    expunge(writer, 2)
    client.settle()
    heard = client.take()
    assert b"* VANISHED 2\r\n" in heard
    noted = re.search(rb"\* OK \[HIGHESTMODSEQ (\d+)\]", heard)
    assert noted
    assert int(noted[1]) == client.session.view.complete_modseq
    assert client.ask(b"DONE\r\n") == b"i OK IDLE completed\r\n"


def test_the_modseq_to_note_follows_new_messages() -> None:
    """4: a client need not read again the messages that it put there itself. Without QRESYNC none is sent."""
    service = services()
    plain, client = selected(service), aware(service)
    for act in (lambda: put(client), lambda: put(plain) and client.ask(b"n NOOP\r\n")):
        answer = act()
        modseq = client.session.view.complete_modseq
        assert re.search(rb"\* \d EXISTS\r\n(?:\* \d RECENT\r\n)?\* OK \[HIGHESTMODSEQ %d\]" % modseq, answer)
    answer = put(client) and plain.ask(b"n NOOP\r\n")
    assert b"* 3 EXISTS\r\n" in answer
    assert b"HIGHESTMODSEQ" not in answer


def test_a_long_list_is_written_in_lines_that_clients_take() -> None:
    service = services(store=forgetful())
    writer = selected(service)
    for _ in range(2500):
        put(writer)
    writer.ask(b"a STORE 1:* +FLAGS.SILENT (\\Deleted)\r\n")
    kept = ",".join(str(number) for number in range(1, 2501, 2))
    writer.ask(f"b STORE {kept} -FLAGS.SILENT (\\Deleted)\r\nc EXPUNGE\r\n".encode())
    client = aware(service)
    answer = client.ask(b"t SELECT INBOX (QRESYNC (%d 1))\r\n" % validity(client))
    lines = [line for line in answer.split(b"\r\n") if line.startswith(b"* VANISHED")]
    assert len(lines) == 2
    assert max(map(len, lines)) < 24_000
    assert vanished(answer) == list(range(2, 2501, 2))
