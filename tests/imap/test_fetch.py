"""FETCH (RFC 3501 6.4.5, 6.4.8, 7.4.2) over the memory store."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mailserver.errors import MailError, MessageExpunged, NoSpace, StoreUnavailable
from mailserver.store.memory import MemoryMailbox, MemoryMessage
from tests.fakes import Client
from tests.imap.fetching import NESTED, ask, opened, section
from tests.imap.sessions import MESSAGE, connect, logged_in, selected, services


def refused(client: Client, command: bytes) -> bytes:
    """The tagged answer of a command that must fail, and nothing else."""
    answer = client.ask(b"t %b\r\n" % command)
    assert answer.startswith((b"t NO ", b"t BAD ")), answer
    return answer


def test_columns() -> None:
    client = opened()
    client.ask(
        b'p APPEND INBOX (\\Flagged work) " 1-Feb-2003 04:05:06 +0100" {%d+}\r\n%b\r\n' % (len(MESSAGE), MESSAGE)
    )
    client.ask(b"c STORE 1 +FLAGS (\\Seen)\r\n")
    size = b"%d" % len(MESSAGE)
    date = b'" 1-Feb-2003 03:05:06 +0000"'
    flags = rb"(\Flagged \Seen work \Recent)"
    assert ask(client, b"FETCH 1 FLAGS") == b"* 1 FETCH (FLAGS %b)\r\n" % flags
    assert ask(client, b"FETCH 1 (UID RFC822.SIZE)") == b"* 1 FETCH (UID 1 RFC822.SIZE %b)\r\n" % size
    assert ask(client, b"fetch 1 internaldate") == b"* 1 FETCH (INTERNALDATE %b)\r\n" % date
    fast = b"FLAGS %b INTERNALDATE %b RFC822.SIZE %b" % (flags, date, size)
    assert ask(client, b"FETCH 1 FAST") == b"* 1 FETCH (%b)\r\n" % fast
    assert ask(client, b"UID FETCH 1 Fast") == b"* 1 FETCH (UID 1 %b)\r\n" % fast
    assert ask(client, b"UID FETCH 1 (FLAGS UID)") == b"* 1 FETCH (FLAGS %b UID 1)\r\n" % flags


def test_the_macros_of_rfc_3501() -> None:
    """RFC 3501 6.4.5: ALL, FAST, FULL, alone only."""
    client = opened(MESSAGE)
    names = rb"(FLAGS|INTERNALDATE|RFC822\.SIZE|ENVELOPE|BODY) "
    for macro, items in (
        (b"ALL", [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE"]),
        (b"FAST", [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"]),
        (b"FULL", [b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE", b"ENVELOPE", b"BODY"]),
    ):
        assert re.findall(names, ask(client, b"FETCH 1 " + macro)) == items
        assert refused(client, b"FETCH 1 (%b)" % macro).startswith(b"t BAD")
        assert refused(client, b"FETCH 1 %b FLAGS" % macro).startswith(b"t BAD")


def test_summaries() -> None:
    client = opened(NESTED)
    answer = ask(client, b"FETCH 1 (UID ENVELOPE BODY BODYSTRUCTURE)")
    assert answer.startswith(b'* 1 FETCH (UID 1 ENVELOPE (NIL "outer" ((NIL NIL "anna" "example.test"))')
    assert b' BODY (("text" "plain"' in answer
    assert b'"alternative" ("boundary" "b") NIL NIL NIL)' in answer


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"[]", NESTED),
        (b"[TEXT]", NESTED.partition(b"\r\n\r\n")[2]),
        (b"[HEADER]", NESTED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"),
        (b"[HEADER.FIELDS (SUBJECT from)]", b"From: anna@example.test\r\nSubject: outer\r\n\r\n"),
        (b"[HEADER.FIELDS (X-Other)]", b"X-Other: one\r\n two\r\n\r\n"),
        (b'[HEADER.FIELDS ("x-other" to)]', b"X-Other: one\r\n two\r\n\r\n"),
        (b"[HEADER.FIELDS (To)]", b"\r\n"),
        (
            b"[header.fields.not (Content-Type X-Other)]",
            b"From: anna@example.test\r\nSubject: outer\r\n\r\n",
        ),
        (b"[1]", b"first"),
        (b"[1.MIME]", b"Content-Type: text/plain\r\n\r\n"),
        (b"[2.MIME]", b"Content-Type: message/rfc822\r\n\r\n"),
        (
            b"[2.HEADER]",
            b"Subject: inner\r\nTo: bert@example.test\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n",
        ),
        (b"[2.HEADER.FIELDS (TO)]", b"To: bert@example.test\r\n\r\n"),
        (
            b"[2.HEADER.FIELDS.NOT (TO)]",
            b"Subject: inner\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n",
        ),
        (b"[2.TEXT]", b"--b\r\n\r\ninner one\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--"),
        (b"[2.1]", b"inner one"),
        (b"[2.2]", b"<p>"),
        (b"[2.2.MIME]", b"Content-Type: text/html\r\n\r\n"),
        (b"[2.1.MIME]", b"\r\n"),
        (b"[3]", b"Subject: plain\r\n\r\nplain body"),
        (b"[3.TEXT]", b"plain body"),
        (b"[3.1]", b"plain body"),
        (b"[3.HEADER]", b"Subject: plain\r\n\r\n"),
        # RFC 3501 6.4.5: HEADER and TEXT of a part that is no message, parts that do not exist
        (b"[1.HEADER]", b""),
        (b"[1.TEXT]", b""),
        (b"[4]", b""),
        (b"[1.1]", b""),
        (b"[4294967295.1.MIME]", b""),
        # partials
        (b"[]<0.4>", NESTED[:4]),
        (b"[]<5.10>", NESTED[5:15]),
        (b"[]<%d.10>" % (len(NESTED) - 3), NESTED[-3:]),
        (b"[]<%d.10>" % len(NESTED), b""),
        (b"[]<4294967295.4294967295>", b""),
        (b"[TEXT]<2.3>", b"eam"),
        (b"[1]<1.3>", b"irs"),
        (b"[HEADER]<1.3>", b"rom"),
        (b"[HEADER.FIELDS (From)]<6.4>", b"anna"),
        (b"[HEADER.FIELDS (X-Other)]<3.4>", b"ther"),
        (b"[4]<0.4>", b""),
    ],
)
def test_sections(text: bytes, found: bytes) -> None:
    client = opened(NESTED)
    assert section(client, text) == found


def test_the_answer_repeats_the_section() -> None:
    client = opened(NESTED)
    assert b"BODY[2.HEADER.FIELDS (TO X-Y)]<1> {" in ask(client, b"FETCH 1 body.peek[2.header.fields (to X-Y)]<1.2>")
    assert b"BODY[1.MIME] {" in ask(client, b"FETCH 1 BODY.PEEK[1.mime]")
    odd = ask(client, b'FETCH 1 BODY.PEEK[HEADER.FIELDS ("a b" {1+}\r\n])]')
    assert odd == b'* 1 FETCH (BODY[HEADER.FIELDS ("a b" "]")] {2}\r\n\r\n)\r\n'


def test_the_older_items() -> None:
    """RFC 3501 6.4.5: RFC822 is BODY[], RFC822.HEADER is BODY.PEEK[HEADER], RFC822.TEXT is BODY[TEXT]."""
    client = opened(MESSAGE)
    header, _, body = MESSAGE.partition(b"\r\n\r\n")
    header += b"\r\n\r\n"
    assert ask(client, b"FETCH 1 RFC822.HEADER") == b"* 1 FETCH (RFC822.HEADER {%d}\r\n%b)\r\n" % (len(header), header)
    assert b"\\Seen" not in ask(client, b"FETCH 1 FLAGS")
    text = ask(client, b"FETCH 1 RFC822.TEXT")
    assert text == b"* 1 FETCH (RFC822.TEXT {%d}\r\n%b FLAGS (\\Seen \\Recent))\r\n" % (len(body), body)
    assert ask(client, b"FETCH 1 RFC822") == b"* 1 FETCH (RFC822 {%d}\r\n%b)\r\n" % (len(MESSAGE), MESSAGE)


@pytest.mark.parametrize(
    "item", [b"BODY[]", b"BODY[TEXT]", b"BODY[1]", b"BODY[HEADER.FIELDS (FROM)]", b"RFC822", b"RFC822.TEXT"]
)
def test_reading_sets_seen_and_tells_it_with_the_answer(item: bytes) -> None:
    """RFC 3501 6.4.5: "if this causes the flags to change, they SHOULD be included"."""
    client = opened(MESSAGE, MESSAGE)
    answer = ask(client, b"FETCH 1:2 (UID %b)" % item)
    assert answer.count(b"FLAGS (\\Seen \\Recent)") == 2
    assert answer.count(b" FETCH ") == 2, "the flags are told once"
    assert b"FLAGS" not in ask(client, b"FETCH 1:2 %b" % item)
    with_flags = opened(MESSAGE)
    assert ask(with_flags, b"FETCH 1 (FLAGS %b)" % item).count(b"FLAGS (\\Seen") == 1


@pytest.mark.parametrize(
    "item", [b"BODY.PEEK[]", b"RFC822.HEADER", b"ENVELOPE", b"BODYSTRUCTURE", b"BODY", b"BODY.PEEK[1]"]
)
def test_peeking_sets_nothing(item: bytes) -> None:
    client = opened(MESSAGE)
    answer, flags = ask(client, b"FETCH 1 " + item), ask(client, b"FETCH 1 FLAGS")
    assert b"* 1 FETCH (" in answer
    assert b"* 1 FETCH (FLAGS (" in flags
    assert b"Seen" not in answer + flags


def test_examine_sets_nothing() -> None:
    client = opened(MESSAGE, examine=True)
    answer, flags = ask(client, b"FETCH 1 BODY[]"), ask(client, b"FETCH 1 FLAGS")
    assert b"* 1 FETCH (BODY[] {" in answer
    assert b"* 1 FETCH (FLAGS (" in flags
    assert b"Seen" not in answer + flags


def test_seen_takes_one_store_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(*[MESSAGE] * 20)
    client.ask(b"c STORE 5 +FLAGS (\\Seen)\r\n")
    calls: list[Any] = []
    store_flags = MemoryMailbox.store_flags

    def counted(self: MemoryMailbox, uids: Any, *more: Any) -> Any:
        calls.append(list(uids))
        return store_flags(self, uids, *more)

    monkeypatch.setattr(MemoryMailbox, "store_flags", counted)
    ask(client, b"FETCH 1:20 BODY[]")
    assert calls == [[uid for uid in range(1, 21) if uid != 5]]


def test_mail_is_read_where_flags_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise NoSpace

    client = opened(MESSAGE)
    monkeypatch.setattr(MemoryMailbox, "store_flags", full)
    answer = ask(client, b"FETCH 1 BODY[TEXT]")
    assert answer == b"* 1 FETCH (BODY[TEXT] {6}\r\nbody\r\n)\r\n"
    assert client.channel.logged[-1][0] == "seen-not-stored"


def test_another_session_hears_of_seen() -> None:
    service = services()
    client = selected(service, messages=1)
    other = selected(service)
    ask(client, b"FETCH 1 BODY[]")
    assert b"* 1 FETCH (FLAGS (\\Seen" in other.ask(b"n NOOP\r\n")


def test_sets() -> None:
    client = opened(*[MESSAGE] * 5)
    client.ask(b"c STORE 2 +FLAGS (\\Deleted)\r\n")
    client.ask(b"e EXPUNGE\r\n")

    def uids(command: bytes) -> list[tuple[int, int]]:
        return [(int(a), int(b)) for a, b in re.findall(rb"\* (\d+) FETCH \(UID (\d+)\)", ask(client, command))]

    assert uids(b"FETCH 1:* UID") == [(1, 1), (2, 3), (3, 4), (4, 5)]
    assert uids(b"FETCH 4,1:2,2 UID") == [(1, 1), (2, 3), (4, 5)]
    assert uids(b"FETCH * UID") == [(4, 5)]
    assert uids(b"UID FETCH 1:* UID") == [(1, 1), (2, 3), (3, 4), (4, 5)]
    assert uids(b"UID FETCH 2:3,9 (UID)") == [(2, 3)]
    # RFC 3501 6.4.8: "A non-existent unique identifier is ignored without any error message generated"
    assert uids(b"UID FETCH 2,77 UID") == []
    # RFC 3501 9, seq-range: "*:4" and "4:*" mean the same: the last message is always in it
    assert uids(b"UID FETCH 99:* UID") == [(4, 5)]
    assert refused(client, b"FETCH 5 UID").startswith(b"t BAD")
    assert refused(client, b"FETCH 1:9 UID").startswith(b"t BAD")
    assert refused(client, b"FETCH 0 UID").startswith(b"t BAD")


def test_an_empty_mailbox() -> None:
    client = opened()
    assert ask(client, b"UID FETCH 1:* FLAGS") == b""
    assert refused(client, b"FETCH 1 FLAGS").startswith(b"t BAD")


@pytest.mark.parametrize(
    "items",
    [
        b"", b"()", b"( FLAGS)", b"(FLAGS )", b"(FLAGS", b"FLAGS)", b"FLAGS UID", b"(FLAGS  UID)", b"(FLAGS) ", b"NONE", b"FLAGS[]",
        b"BODY[", b"BODY[]x", b"BODY[]<", b"BODY[]<0>", b"BODY[]<0.0>", b"BODY[]<1.>", b"BODY[]<-1.2>", b"BODY[]<0.4294967296>",
        b"BODY[0]", b"BODY[01]", b"BODY[1.]", b"BODY[.1]", b"BODY[1..2]", b"BODY[4294967296]", b"BODY[MIME]", b"BODY[FOO]", b"BODY[1.FOO]",
        b"BODY[HEADER.FIELDS]", b"BODY[HEADER.FIELDS ()]", b"BODY[HEADER.FIELDS (A B]", b"BODY[HEADER.FIELDS(A)]", b"BODY[HEADER (A)]",
        b"BODY.PEEK", b"BODY[TEXT.1]", b"BODY[1TEXT]", b"BODYSTRUCTURE[]", b"RFC822[]", b"ENVELOPE<0.1>",
        b"BODY[1.2.3.4", b"BODY [TEXT]", b"BODY[ TEXT]", b"MODSEQ[]", b"BINARY[TEXT]",
    ],
)  # fmt: skip
def test_wrong_items_are_bad(items: bytes) -> None:
    client = opened(MESSAGE)
    assert refused(client, b"FETCH 1 " + items).startswith(b"t BAD")
    assert ask(client, b"FETCH 1 UID") == b"* 1 FETCH (UID 1)\r\n"


def test_bounds_of_a_command() -> None:
    client = opened(MESSAGE)
    assert refused(client, b"FETCH 1 BODY[%b1]" % (b"1." * 100)).startswith(b"t NO [LIMIT]")
    assert refused(client, b"FETCH 1 (%b)" % b" ".join([b"UID"] * 1002)).startswith(b"t NO [LIMIT]")
    names = b" ".join(b"a%d" % number for number in range(1001))
    assert refused(client, b"FETCH 1 BODY.PEEK[HEADER.FIELDS (%b)]" % names).startswith(b"t NO [LIMIT]")
    assert refused(client, b"FETCH 1").startswith(b"t BAD")
    assert refused(client, b"FETCH").startswith(b"t BAD")


def test_it_needs_a_selected_mailbox() -> None:
    assert b"t BAD" in logged_in(services()).ask(b"t FETCH 1 FLAGS\r\n")
    client = connect(services())
    client.take()
    assert b"t BAD" in client.ask(b"t FETCH 1 FLAGS\r\n")


def test_items_are_told_once_and_in_order() -> None:
    client = opened(MESSAGE)
    assert ask(client, b"FETCH 1 (UID RFC822.SIZE UID)") == b"* 1 FETCH (UID 1 RFC822.SIZE %d)\r\n" % len(MESSAGE)
    both = ask(client, b"FETCH 1 (BODY.PEEK[TEXT] UID BODY.PEEK[HEADER.FIELDS (FROM)])")
    assert re.fullmatch(
        rb"\* 1 FETCH \(BODY\[TEXT\] \{6\}\r\nbody\r\n UID 1 BODY\[HEADER.FIELDS \(FROM\)\] \{\d+\}\r\n.*\)\r\n",
        both,
        re.DOTALL,
    )


def test_messages_that_another_session_expunged() -> None:
    """RFC 2180 4.1.2: the rest is told, then NO; the sequence numbers stay until they may move."""
    service = services()
    client = selected(service, messages=3)
    other = selected(service)
    other.ask(b"c STORE 2 +FLAGS (\\Deleted)\r\n")
    other.ask(b"e EXPUNGE\r\n")
    client.ask(b"f FETCH 1 UID\r\n")  # takes up the flags
    for items in (b"UID", b"(UID ENVELOPE)", b"(UID BODY.PEEK[TEXT])", b"(UID BODY[])"):
        answer = client.ask(b"t FETCH 1:3 %b\r\n" % items)
        assert re.findall(rb"\* (\d) FETCH \(UID (\d)", answer) == [(b"1", b"1"), (b"3", b"3")], answer
        assert b"EXPUNGE\r\n" not in answer
        assert b"\r\nt NO [EXPUNGEISSUED] " in answer
    assert b"* 2 EXPUNGE\r\n" in client.ask(b"n NOOP\r\n")
    assert re.findall(rb"\* (\d) FETCH \(UID (\d)", ask(client, b"FETCH 1:2 UID")) == [(b"1", b"1"), (b"2", b"3")]


def test_a_file_that_vanishes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(*[MESSAGE] * 3)
    open_message = MemoryMailbox.open_message

    def vanish(self: MemoryMailbox, uid: Any) -> Any:
        if uid == 2:
            raise MessageExpunged
        return open_message(self, uid)

    monkeypatch.setattr(MemoryMailbox, "open_message", vanish)
    answer = client.ask(b"t FETCH 1:3 (UID BODY.PEEK[])\r\n")
    assert re.findall(rb"\* (\d) FETCH \(UID (\d)", answer) == [(b"1", b"1"), (b"3", b"3")]
    assert b"t NO [EXPUNGEISSUED]" in answer


def test_uid_fetch_ignores_expunged_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 3501 6.4.8; what cannot be read is reported all the same."""
    client = opened(*[MESSAGE] * 3)
    open_message = MemoryMailbox.open_message
    errors: dict[int, MailError] = {2: MessageExpunged()}

    def refuse(self: MemoryMailbox, uid: Any) -> Any:
        if uid in errors:
            raise errors[uid]
        return open_message(self, uid)

    monkeypatch.setattr(MemoryMailbox, "open_message", refuse)
    for asked in (b"1:3", b"2"):
        answer = client.ask(b"t UID FETCH %b (BODY.PEEK[])\r\n" % asked)
        assert b"* 2 FETCH" not in answer
        assert b"t OK " in answer
    client, errors[3] = opened(*[MESSAGE] * 3), StoreUnavailable()
    assert b"t NO [UNAVAILABLE]" in client.ask(b"t UID FETCH 1:3 (BODY.PEEK[])\r\n")


def test_a_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(*[MESSAGE] * 3)
    read = MemoryMessage.read

    def short(self: MemoryMessage, offset: int = 0, count: int | None = None) -> bytes:
        return read(self, offset, count)[:-1]

    monkeypatch.setattr(MemoryMessage, "read", short)
    answer = client.ask(b"t FETCH 1:3 (UID BODY.PEEK[])\r\n")
    assert answer.startswith(b"t NO [UNAVAILABLE]"), "no octet of a message is told that is shorter than its size"
    monkeypatch.undo()

    def unreadable(*_: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(MemoryMailbox, "open_message", unreadable)
    assert client.ask(b"t FETCH 1:3 (UID BODY.PEEK[])\r\n").startswith(b"t NO [UNAVAILABLE]")
    assert ask(client, b"FETCH 1:3 UID").count(b"FETCH") == 3
