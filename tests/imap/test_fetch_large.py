"""FETCH of much: what is read, in which pieces, and what a client that does not read costs."""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import StoreUnavailable
from mailserver.imap.fetch.plan import CHUNK
from mailserver.imap.fetch.result import CachedData
from mailserver.imap.fetch.section import PIECE
from mailserver.message.limits import SEEN
from mailserver.store.memory import MemoryMailbox, MemoryMessage
from mailserver.store.receiving import NewMessage
from mailserver.types import UNKNOWN_DATE, UNKNOWN_SIZE
from tests.corpus import crlf
from tests.imap.fetching import LARGE, NESTED, ask, live_mailbox, opened, put_foreign, section, sizes_read
from tests.imap.sessions import MESSAGE


def test_large_messages_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(MESSAGE, LARGE, MESSAGE)
    sizes = sizes_read(monkeypatch)
    closed: list[MemoryMessage] = []

    def close(self: MemoryMessage) -> None:
        closed.append(self)

    monkeypatch.setattr(MemoryMessage, "close", close)
    drains = client.channel.drains
    answer = ask(client, b"FETCH 1:3 (UID BODY.PEEK[])")
    assert answer.count(LARGE) == 1
    assert answer == b"".join(
        b"* %d FETCH (UID %d BODY[] {%d}\r\n%b)\r\n" % (number, number, len(data), data)
        for number, data in enumerate((MESSAGE, LARGE, MESSAGE), 1)
    )
    assert max(sizes) <= PIECE
    assert client.channel.drains - drains >= len(LARGE) // PIECE
    assert len(closed) == 2, "the large one stays open for who asks again"


def test_a_large_text_needs_only_the_header_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(LARGE)
    sizes = sizes_read(monkeypatch)
    assert section(client, b"[TEXT]") == LARGE[18:]
    assert max(sizes) <= PIECE
    sizes.clear()
    assert section(client, b"[TEXT]<100.50>") == LARGE[118:168]
    assert section(client, b"[]<1000000.10>") == LARGE[1000000:1000010]
    assert sum(sizes) <= 2 * PIECE


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("size", "command"), [(60_000, b"FETCH 1:64 BODY.PEEK[]"), (70_000, b"FETCH 1:64 BODY.PEEK[1]<0.10>")]
)
def test_who_does_not_read_holds_neither_texts_nor_files(
    monkeypatch: pytest.MonkeyPatch, size: int, command: bytes, *, again: bool
) -> None:
    """What is kept for all sessions is bounded together, and what one needs of it is not kept for it while it waits."""
    client = opened(*[b"Subject: x\r\n\r\n" + b"y" * size] * 64)
    if again:
        ask(client, command)
    held: list[int] = []
    drain = type(client.channel).drain
    others = [each for each in gc.get_objects() if isinstance(each, CachedData)]

    async def measured(channel: Any) -> None:
        known = [
            each for each in gc.get_objects() if isinstance(each, CachedData) and not any(each is it for it in others)
        ]
        held.append(sum(len(each.texts) + len(each.files) for each in known))
        await drain(channel)

    monkeypatch.setattr(type(client.channel), "drain", measured)
    ask(client, command)
    assert set(held) == {0}


def test_many_messages_come_in_bounded_chunks() -> None:
    half = b"Subject: x\r\n\r\n" + b"y" * (CHUNK // 2)
    client = opened(*[half] * 6)
    drains = client.channel.drains
    assert ask(client, b"FETCH 1:6 BODY.PEEK[]").count(half) == 6
    assert client.channel.drains - drains >= 3


@pytest.mark.parametrize("fault", [None, StoreUnavailable()])
def test_a_large_message_that_breaks_off_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    """Its size has been told; the client must not take what follows for the message."""
    client = opened(LARGE)
    client.session.utf8 = True  # others have it read before its size is sent
    read = MemoryMessage.read

    def broken(self: MemoryMessage, offset: int = 0, count: int | None = None) -> bytes:
        if offset < 100_000:
            return read(self, offset, count)
        if fault is not None:
            raise fault
        return b""

    monkeypatch.setattr(MemoryMessage, "read", broken)
    answer = client.ask(b"t FETCH 1 BODY.PEEK[]\r\n")
    assert client.channel.closed
    assert client.done
    assert b"\r\nt " not in answer
    assert ("message-truncated", {"user": "anna@example.test"}) in client.channel.logged


def test_a_client_that_goes_while_reading() -> None:
    client = opened(LARGE)
    client.channel.ended = True
    client.send(b"t FETCH 1 BODY.PEEK[]\r\n")
    assert client.done
    assert not client.channel.bugs


def test_nul_never_reaches_the_client() -> None:
    """RFC 3501 4.3: literals hold no NUL. The size stays."""
    client = opened()
    account = client.session.account.account
    staged = account.stage()
    staged.write(b"Subject: a\0b\r\n\r\nc\0d")
    account.append("INBOX", [NewMessage(staged)])
    client.session.mailbox.live.poked()
    client.ask(b"n NOOP\r\n")
    answer = ask(client, b"FETCH 1 (ENVELOPE BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[TEXT] BODY.PEEK[])")
    assert b"\0" not in answer
    assert b'"ab"' in answer
    assert b"BODY[TEXT] {3}\r\nc\x80d" in answer
    assert b"BODY[] {19}\r\n" in answer


def test_sizes_that_are_not_known_yet() -> None:
    client = opened(*[MESSAGE] * 3)
    columns = live_mailbox(client).columns
    date = columns.dates[1]
    columns.sizes[1] = UNKNOWN_SIZE
    columns.dates[1] = UNKNOWN_DATE
    answer = ask(client, b"FETCH 1:3 (RFC822.SIZE)")
    assert re.findall(rb"SIZE (\d+)", answer) == [b"%d" % len(MESSAGE)] * 3
    assert (columns.sizes[1], columns.dates[1]) == (len(MESSAGE), date), "it is known from now on"
    columns.dates[2] = UNKNOWN_DATE
    assert ask(client, b"FETCH 3 FAST").count(b"INTERNALDATE") == 1
    assert columns.dates[2] != UNKNOWN_DATE


def test_too_many_kept_fields_are_read_from_the_file() -> None:
    many = b"".join(b"References: <%d@example.test>\r\n" % number for number in range(3000)) + b"Subject: s\r\n\r\nx"
    client = opened(many)
    assert section(client, b"[HEADER.FIELDS (SUBJECT)]") == b"Subject: s\r\n\r\n"
    assert section(client, b"[HEADER.FIELDS (REFERENCES)]").count(b"References") == 3000


def test_usual_header_fields_open_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(*[NESTED] * 3)

    def closed(*_: Any) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(MemoryMailbox, "open_message", closed)
    fields = b"Date From Sender Subject To Cc Message-ID References Content-Type In-Reply-To Reply-To List-Post X-Label"
    answer = ask(client, b"FETCH 1:3 (FLAGS UID ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (%b)])" % fields)
    assert answer.count(b"Subject: outer\r\n") == 3


def test_a_hundred_thousand_flags_come_in_chunks() -> None:
    """The columns are extended by hand: the point is what is written at a time, and that all of it is right."""
    client = opened(MESSAGE)
    live = live_mailbox(client)
    count = 100_000
    columns, view = live.columns, client.session.view
    for column, value in ((columns.flags, 1), (columns.modseqs, 1), (columns.sizes, 7), (columns.dates, 0)):
        column.extend([value] * (count - 1))
    columns.uids.extend(range(2, count + 1))
    view.count = count
    view.recent_uids.add(range(count - 10, count + 1))
    drains = client.channel.drains
    answer = ask(client, b"FETCH 1:* (UID FLAGS)")
    lines = answer.split(b"\r\n")
    assert len(lines) == count + 1
    assert lines[1] == b"* 2 FETCH (UID 2 FLAGS (\\Answered))"
    assert lines[count - 1] == b"* %d FETCH (UID %d FLAGS (\\Answered \\Recent))" % (count, count)
    assert client.channel.drains - drains >= len(answer) // (2 * CHUNK)
    some = ask(client, b"FETCH 1,3,99990:* RFC822.SIZE")
    assert some.count(b"SIZE 7)") == 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"BODY", b"BODY.PEEK", b"[", b"]", b"<", b">", b"0", b"1", b".", b" ", b"(", b")", b"HEADER.FIELDS", b"TEXT", b"MIME", b"UID", b"FLAGS", b'"', b"{1+}\r\na"]),
        max_size=12,
    ).map(b"".join)
)  # fmt: skip
def test_any_items_get_one_answer(items: bytes) -> None:
    client = opened(MESSAGE)
    answer = client.ask(b"t FETCH 1 %b\r\nu NOOP\r\n" % items)
    assert len(re.findall(rb"(?m)^t (?:OK|NO|BAD) ", answer)) == 1
    assert answer.count(b"u OK NOOP completed\r\n") == 1


def test_the_structure_of_a_large_message_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that fetches an attachment in pieces must not cost a whole reading for each."""
    attachment = b"QUJDRA==\r\n" * 60_000
    message = (
        crlf(b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\ntext\n--a\nX: y\n\n") + attachment + b"--a--\r\n"
    )
    client = opened(message, message.replace(b"text", b"txt"))
    first = section(client, b"[2]<0.1000>")
    sizes = sizes_read(monkeypatch)
    assert first + section(client, b"[2]<1000.599998>") == attachment[:-2]
    assert section(client, b"[2.MIME]") == b"X: y\r\n\r\n"
    assert sum(sizes) == len(attachment) - 2 - 1000 + 8
    other = ask(client, b"FETCH 2 BODY.PEEK[2]<0.10>")
    assert other == b"* 2 FETCH (BODY[2]<0> {10}\r\nQUJDRA==\r\n)\r\n"


@pytest.mark.timeout(60)
def test_a_header_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB of header: read once, in pieces, and sent in pieces."""
    header = b"X-A: 0123456789\r\n" * 1_200_000
    client = opened()
    put_foreign(client, header)
    sizes = sizes_read(monkeypatch)
    assert section(client, b"[HEADER]") == header
    assert max(sizes) <= PIECE
    assert sum(sizes) == 2 * len(header) + SEEN
    assert section(client, b"[TEXT]") == b""
    assert section(client, b"[HEADER.FIELDS (SUBJECT)]") == b"\r\n"
