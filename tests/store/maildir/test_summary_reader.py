"""Headers read from the beginning of a file, and what is left unread by it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailserver.errors import StoreUnavailable
from mailserver.imap.session import Session
from mailserver.message.header_summary import HeaderSummary, fields_text
from mailserver.message.headers import header_end
from mailserver.message.limits import SEEN
from mailserver.message.render import summarise
from mailserver.store.index.messages import Messages
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.format.message_file import to_crlf
from mailserver.store.maildir.mailbox import summary_reader
from mailserver.store.maildir.mailbox.summary_reader import read_header
from mailserver.store.query import And, Header, Larger, Sent
from mailserver.store.rows import Row
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID
from tests.fakes import Client, info
from tests.imap.sessions import services

PIECES = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b"a", b": ", b" ", b"\0", b"Subject: x\r\n", b"To: y\n"]), max_size=12
)
BODY = b"x" * 100 + b"\n"


def header_of(data: bytes) -> bytes:
    sent = to_crlf(data)
    return sent[: header_end(sent)]


@given(PIECES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_the_header_of_the_message_as_sent(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"".join(pieces))
    header, is_whole = read_header(str(path))
    assert (to_crlf(header), is_whole) == (header_of(b"".join(pieces)), True)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("length", range(summary_reader._HEADER - 40, summary_reader._HEADER + 4))
def test_headers_about_as_long_as_what_is_read(tmp_path: Path, line_end: bytes, length: int) -> None:
    start = b"Subject: x" + line_end + b"X-Long: "
    data = start + b"y" * (length - len(start)) + line_end + line_end + BODY * 100
    path = tmp_path / "message"
    path.write_bytes(data)
    header, is_whole = read_header(str(path))
    assert (to_crlf(header), is_whole) == (header_of(data), True)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("length", [100_000, SEEN - 3000, SEEN - 4, SEEN, 4 * SEEN])
def test_of_a_header_that_is_too_long_little_is_read(tmp_path: Path, line_end: bytes, length: int) -> None:
    """What is told of the header alone is what is told of it with the message."""
    data = b"Subject: x" + line_end + (b"X-Long: yyyyy" + line_end) * (length // (13 + len(line_end)))
    data += b"To: a@example.test" + line_end * 2 + BODY * 100
    path = tmp_path / "message"
    path.write_bytes(data)
    header, is_whole = read_header(str(path))
    assert len(header) <= SEEN
    assert is_whole == (len(header_of(data)) <= SEEN)
    whole = summarise(to_crlf(data))
    summary = HeaderSummary(header, is_whole=is_whole)
    assert (summary.envelope(), summary.fields) == (whole.envelope, whole.fields)
    assert (whole.fields == b"*") == (len(header_of(data)) > SEEN)
    assert b"Subject" not in whole.envelope
    assert b'"x"' in whole.envelope


@pytest.fixture
def store(tmp_path):
    return MaildirStore(str(tmp_path), summarise, location="{root}/{local}/Maildir")


def deliver(store, name: str, data: bytes) -> None:
    account = store.account("anna@example.test")
    with open(os.path.join(account.root, "cur", f"{name}:2,"), "wb") as file:
        file.write(data)
    account.close()


def test_bodies_are_not_read_for_what_headers_tell(store, monkeypatch) -> None:
    deliver(store, "1700000001.a", b"Subject: garden\n\n" + BODY * 1000)
    account = store.account("anna@example.test")
    mailbox = account.mailbox("INBOX")
    read = 0
    plain = os.read

    def counted(fd: int, count: int) -> bytes:
        nonlocal read
        data = plain(fd, count)
        read += len(data)
        return data

    monkeypatch.setattr(os, "read", counted)
    monkeypatch.setattr(os, "pread", None)
    [(_uid, row, summary)] = mailbox.summaries([1], only_head=True)
    assert read <= summary_reader._HEADER
    assert row.size > 2**31
    assert (summary.body, summary.body_structure) == (b"", b"")
    # It is kept, and a search of headers needs no more.
    assert mailbox.search(Header("Subject", "garden"), [1]) == [1]
    assert read <= summary_reader._HEADER
    monkeypatch.undo()
    # A size that is asked for later is found out, though there is a summary.
    assert mailbox.search(Larger(100_000), [1]) == [1]
    assert mailbox.load().rows[0].size == len(to_crlf(b"Subject: garden\n\n" + BODY * 1000))
    account.close()


def test_a_client_gets_the_rest_when_it_asks_for_it(store) -> None:
    data = [
        b"Subject: one\r\n\r\n" + BODY,
        b"Subject: long\nX-Long: " + b"y" * 10_000 + b"\n\n" + BODY,
        b"Subject: no body",
        b"\nonly body\n",
    ]
    for number, source in enumerate(data):
        deliver(store, f"170000000{number}.a", source)
    service = services(store=store)
    client = Client(lambda channel: Session(channel, service), info())
    client.take()
    client.send(b"a LOGIN anna@example.test secret\r\nb SELECT INBOX\r\nc FETCH 1:* (ENVELOPE)\r\n")
    answer = client.take()
    wanted = [summarise(to_crlf(source)) for source in data]
    for seq, summary in enumerate(wanted, 1):
        assert b"* %d FETCH (ENVELOPE %b)\r\n" % (seq, summary.envelope) in answer
    client.send(b"d FETCH 1:* (BODYSTRUCTURE RFC822.SIZE BODY)\r\n")
    answer = client.take()
    for seq, (summary, source) in enumerate(zip(wanted, data, strict=True), 1):
        facts = summary.body_structure, len(to_crlf(source)), summary.body
        assert b"* %d FETCH (BODYSTRUCTURE %b RFC822.SIZE %d BODY %b)\r\n" % (seq, *facts) in answer


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hostname", path)])
def test_what_is_no_file_has_no_header(tmp_path, make):
    path = str(tmp_path / "1700000000.a.host")
    make(path)
    with pytest.raises(StoreUnavailable):
        read_header(path)


def test_an_empty_file_has_an_empty_header(tmp_path):
    path = tmp_path / "1700000000.a.host"
    path.touch()
    assert read_header(str(path)) == (b"", True)


@pytest.mark.parametrize("whole", [True, False])
def test_a_text_for_a_search_is_made_of_kept_lines(store, monkeypatch, whole: bool) -> None:
    deliver(store, "1700000001.a", b"Subject: =?utf-8?q?G=C3=84RTEN?=\nX-Other: x\nDate: 1 Jan 2024 00:00:00 +0000\n\n")
    account = store.account("anna@example.test")
    mailbox = account.mailbox("INBOX")
    mailbox.summaries([1], only_head=not whole)
    monkeypatch.setattr(summary_reader, "read_header", None)
    query = And((Header("Subject", "gärten"), Sent(19723, 19724)))
    assert mailbox.search(query, [1]) == [1]
    monkeypatch.setattr(summary_reader, "HeaderSummary", None)
    assert mailbox.search(query, [1]) == [1], "the text is kept"
    account.close()


def test_a_search_of_one_field_reads_no_other(store, monkeypatch) -> None:
    deliver(store, "1700000001.a", b"Subject: garden\nX-Subject: pond\nTo: Anna\nSUBJECT : a\n pond\n\nSubject: body\n")
    deliver(store, "1700000002.a", b"From: garden\nSubjects: pond\n\n")
    account = store.account("anna@example.test")
    mailbox = account.mailbox("INBOX")
    with monkeypatch.context() as patch:
        patch.setattr(summary_reader, "HeaderSummary", None)
        for _again in range(2):
            found = [mailbox.search(Header("Subject", text), [1, 2]) for text in ("garden", "a pond", "body", "")]
            assert found == [[1], [1], [], [1]]
            patch.setattr(summary_reader, "read_header", None)
    # The next field is the sign that more will follow: the text of all fields is made.
    assert mailbox.search(Header("From", "garden"), [1, 2]) == [2]
    monkeypatch.setattr(summary_reader, "read_header", None)
    assert mailbox.search(Header("To", "anna"), [1, 2]) == [1]
    assert mailbox.search(And((Header("Subject", "garden"), Header("To", "anna"))), [1, 2]) == [1]
    account.close()


def test_a_field_behind_what_is_read_of_a_long_header_is_found(store) -> None:
    deliver(store, "1700000001.a", b"Subject: garden\n" + b"X-Long: y\n" * (SEEN // 9) + b"Subject: pond\n\nbody\n")
    deliver(store, "1700000002.a", b"Subject: pond\n\n")
    account = store.account("anna@example.test")
    mailbox = account.mailbox("INBOX")
    for _again in range(2):
        found = [mailbox.search(Header("Subject", text), [1, 2]) for text in ("pond", "garden", "body")]
        assert found == [[1, 2], [1], []]
    account.close()


@given(header=PIECES, names=st.sets(st.sampled_from(["subject", "to", "from"]), min_size=1))
def test_the_text_of_some_fields_is_a_part_of_that_of_all(header: list[bytes], names: set[str]) -> None:
    octets = b"".join(header)
    lines = HeaderSummary(octets).text().text.split("\n")
    wanted = sorted(line for line in lines if line.partition(":")[0] in names)
    assert sorted(fields_text(octets, names).split("\n")[1:]) == wanted


def test_a_search_leaves_envelopes_to_those_who_ask_for_them(store) -> None:
    deliver(store, "1700000001.a", b"Subject: garden\n\n" + BODY)
    account = store.account("anna@example.test")
    mailbox = account.mailbox("INBOX")
    assert mailbox.search(Header("Subject", "garden"), [1]) == [1]
    assert mailbox.envelopes([1]) == {}
    [(_uid, _row, summary)] = mailbox.summaries([1], only_head=True)
    assert b'"garden"' in summary.envelope
    account.close()


def test_what_a_time_slice_has_no_room_for_is_not_read_from_the_index(store, monkeypatch) -> None:
    for number in range(10):
        deliver(store, f"170000000{number}.a", b"Subject: %d\n\n" % number)
    account = store.account("anna@example.test")
    mailbox = account.mailbox("INBOX")
    monkeypatch.setattr(summary_reader, "BATCH", 4)
    asked: list[int] = []
    rows_of = Messages.rows_of

    def counted(self: Messages, key: int, uids: Sequence[int]) -> list[Row]:
        asked.extend(uids)
        return rows_of(self, key, uids)

    monkeypatch.setattr(Messages, "rows_of", counted)
    uids = [UID(number) for number in range(1, 11)]
    for only_head in (True, False):
        assert len(mailbox.summaries(uids, only_head=only_head, time_slice=TimeSlice(1))) == 1
        assert len(asked) == 4
        asked.clear()
    assert [uid for uid, _row, _summary in mailbox.summaries(uids, time_slice=TimeSlice(1 << 20, 3600.0))] == uids
    assert asked == uids
    account.close()
