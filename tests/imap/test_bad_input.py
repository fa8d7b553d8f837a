"""What hostile or broken clients send: the refusal, bounded memory, and the stream in step afterwards."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import InUse, MailboxChanged
from mailserver.imap.wire.sequence_set import MAX_RANGES
from tests.fakes import Client
from tests.imap.sessions import connect, logged_in, selected, services


def in_step(client: Client) -> bool:
    return client.ask(b"z NOOP\r\n").endswith(b"z OK NOOP completed\r\n")


def test_long_lines_before_and_after_login() -> None:
    service = services()
    for client, size in ((connect(service), 32_769), (logged_in(service), 65537)):
        client.take()
        assert client.ask(b"a NOOP ".ljust(size, b"x") + b"\r\n") == b"a BAD line too long\r\n"
        assert in_step(client)


def test_endless_line_ends_the_connection() -> None:
    client = connect(services())
    client.take()
    for _ in range(100):
        client.send(b"x" * 1000)
        assert len(client.session.input._framer._buffer) < 40_000
    assert client.done
    assert b"* BYE " in client.take()


@pytest.mark.parametrize("size", [4097, 2**31, 2**32, 2**63, 2**64, 10**30])
def test_no_large_literal_is_invited_before_login(size: int) -> None:
    client = connect(services())
    client.take()
    answer = client.ask(b"a LOGIN {%d}\r\n" % size)
    assert answer.startswith(b"a NO [TOOBIG] ")
    assert in_step(client)


@pytest.mark.parametrize("size", [65 * 1024, 2**31, 2**64])
def test_large_non_sync_literals_before_login_end_the_connection(size: int) -> None:
    client = connect(services())
    client.take()
    answer = client.ask(b"a LOGIN {%d+}\r\n" % size)
    assert answer.startswith(b"a NO [TOOBIG] ")
    assert b"* BYE " in answer
    assert client.done


@pytest.mark.parametrize("size", [64 * 1024 * 1024 + 1, 2**31, 2**64])
def test_append_over_the_limit_is_refused_before_the_octets_are_asked_for(size: int) -> None:
    client = logged_in(services())
    assert client.ask(b"a APPEND INBOX {%d}\r\n" % size).startswith(b"a NO [TOOBIG] ")
    assert in_step(client)


def test_literals_of_one_command_share_a_bound() -> None:
    client = logged_in(services())
    answer = client.ask(b"a LIST {40000+}\r\n" + b"x" * 40000 + b" {40000+}\r\n" + b"y" * 40000 + b"\r\n")
    assert answer.startswith(b"a NO [TOOBIG] ")
    assert in_step(client)


def test_absurd_sequence_sets() -> None:
    client = selected(services(), messages=3)
    many = b",".join(b"%d" % (number % 3 + 1) for number in range(3300))
    assert client.ask(b"a STORE %b +FLAGS.SILENT (x)\r\n" % many).endswith(b"a OK STORE completed\r\n")
    many = b",".join([b"1"] * (MAX_RANGES + 1))
    assert client.ask(b"a UID STORE %b +FLAGS (x)\r\n" % many).startswith(b"a NO [LIMIT] ")
    assert client.ask(b"a UID STORE 1:4294967295 +FLAGS (x)\r\n").endswith(b"a OK UID STORE completed\r\n")
    assert client.ask(b"a UID STORE 1:4294967296 +FLAGS (x)\r\n").startswith(b"a BAD ")
    assert in_step(client)


@pytest.mark.parametrize(
    "name",
    [
        b'"a\\\\..\\\\b"',
        b"../x",
        b"a/../../x",
        b"..",
        b".",
        b"/",
        b"//",
        b"/etc/passwd",
        b"a//b",
        b"{3+}\r\na\x01b",
        b"{3+}\r\na\x7fb",
        b"{3+}\r\na\nb",
        b"x" * 1025,
        b"&AC8-",
        b"&AC4ALg-",
        b"&2AA-",
    ],
)
def test_impossible_mailbox_names(name: bytes) -> None:
    """Refused, or a plain name that leads nowhere else: what is created is listed once, below the same name."""
    client = logged_in(services())
    answer = client.ask(b"a CREATE " + name + b"\r\n")
    if answer.startswith(b"a OK"):
        assert client.ask(b"a SELECT " + name + b"\r\n").endswith(b"[READ-WRITE] opened\r\n")
    else:
        assert answer.startswith((b"a NO [CANNOT] ", b"a BAD ")), answer
        assert client.ask(b'a LIST "" *\r\n').count(b"* LIST") == 3
    assert in_step(client)


def test_wildcards_without_end() -> None:
    client = logged_in(services())
    client.send(b"a CREATE " + b"a" * 200 + b"\r\n")
    client.take()
    assert client.ask(b'a LIST "" ' + b"*a%" * 300 + b"b\r\n") == b"a OK LIST completed\r\n"


def test_errors_of_the_closing_sync_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=1)
    live = client.session.selected.live
    mailbox = live.mailbox

    def busy(names: object = None, *, claims: bool = False) -> None:
        raise InUse

    monkeypatch.setattr(mailbox, "refresh", busy)
    live.poked()
    answer = client.ask(b"a NOOP\r\n")
    assert answer.startswith(b"* NO [INUSE] ")
    assert answer.endswith(b"a OK NOOP completed\r\n")
    monkeypatch.undo()
    assert in_step(client)


def test_a_mailbox_that_vanishes_ends_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=1)
    client.ask(b"a IDLE\r\n")

    def gone(names: object = None, *, claims: bool = False) -> None:
        raise MailboxChanged

    live = client.session.selected.live
    monkeypatch.setattr(live.mailbox, "refresh", gone)
    live.poked()
    client.settle()
    assert client.take().startswith(b"* BYE [NONEXISTENT] ")
    assert client.done
    assert live.users == 0


WORDS = (
    b"a", b"LOGIN", b"APPEND", b"FETCH", b"UID", b"STORE", b"SEARCH", b"SELECT", b"INBOX", b"LIST", b"IDLE", b"DONE", b"1:*",
    b"(", b")", b'"', b"\\", b"{3}", b"{3+}", b"{70000+}", b"~{2+}", b"\r\n", b"\r\n", b"\r", b"\n", b"\0", b"\xff", b"FLAGS",
    b"(\\Seen)", b"BODY[]", b"<0.1>", b"+FLAGS", b"*", b"%", b"&", b"RETURN", b"OR", b"NOT", b"anna@example.test", b"secret",
    b"SORT", b"(REVERSE DATE)", b"THREAD", b"REFERENCES", b"UTF-8", b"AUTHENTICATE", b"PLAIN", b"=", b"COPY", b"MOVE", b"STATUS", b"(MESSAGES)", b"ID", b"NIL", b"CREATE", b"RENAME", b"ENABLE", b"QRESYNC",
    b"UIDONLY", b"CONDSTORE", b"MODSEQ", b"(CHANGEDSINCE 1 VANISHED)", b"(UNCHANGEDSINCE 1)", b"(QRESYNC (1 1 1:2 (1 1)))",
    b"NOTIFY", b"SET", b"NONE", b"(PERSONAL (MessageNew MessageExpunge))", b"(SELECTED (MessageNew (UID) MessageExpunge FlagChange))",
    b"GETQUOTA", b"GETQUOTAROOT", b"SETQUOTA", b"(STORAGE 512)", b'"User quota"', b"(DELETED-STORAGE)",
    b"FILTER", b"SETMETADATA", b"(/private/filters/values/a", b'"OR SEEN FILTER a")', b'""',
    b"(UPDATE CONTEXT)", b"CANCELUPDATE", b'"a"',
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=60), st.booleans(), st.integers(0, 2**32))
def test_no_words_make_a_bug(words: list[bytes], spaced: bool, seed: int) -> None:
    """A bug would fail the test by itself; and after a clean line end the session answers again, or has said BYE."""
    source = random.Random(seed)
    client = selected(services(), messages=2)
    data = b"".join(word + (b" " if spaced and source.random() < 0.8 else b"") for word in words)
    client.send(data)
    if not client.done:
        # Ends whatever line, literal or IDLE is open.
        client.send(b"\r\n" + b"x" * 70000 + b"\r\nDONE\r\n\r\n")
    answer = client.take()
    assert client.done == (b"* BYE" in answer)
    if not client.done:
        assert in_step(client)
