"""Messages with UTF-8 in headers, for clients with UTF8=ACCEPT and for those without (RFC 9755, RFC 6858)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from mailserver.message.render import summarise
from mailserver.message.surrogate import apply_edits, message_edits
from tests.corpus import crlf
from tests.fakes import Client
from tests.imap.fetching import ask, opened, section
from tests.imap.sessions import logged_in, put, services
from tests.message.test_surrogate import LINES

PLAIN = crlf(b"From: anna@example.test\nSubject: plain\n\nbody\n")
ODD = b"From: a@example.test\r\nSubject: \xfcber\r\n\r\nbody \xfc\r\n"
EIGHT_BIT = crlf(
    "Subject: parts\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nTäxt\n--b--\n".encode()
)
NEW = crlf("From: Jürgen <jürgen@example.test>\nTo: anna@example.test\nSubject: Grüße\nX-Odd: ü\n\nTäxt\n".encode())
NESTED = crlf(
    "From: anna@example.test\nSubject: outer\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
    'Content-Type: text/plain\nContent-Disposition: attachment; filename="Straße.txt"\n\nTäxt\n'
    "--b\nContent-Type: message/rfc822\n\nSubject: inner\nX-Odd: ü\n\nbody\n--b--\n".encode()
)
LARGE = NESTED.replace(b"body\r\n", b"0123456789abcde\r\n" * 20_000)
ALL = [PLAIN, ODD, EIGHT_BIT, NEW, NESTED, LARGE]


def enabled(client: Client) -> Client:
    assert client.ask(b"e ENABLE UTF8=ACCEPT\r\n") == b"* ENABLED UTF8=ACCEPT\r\ne OK ENABLE completed\r\n"
    return client


def both(*messages: bytes) -> tuple[Client, Client]:
    """A client without and one with UTF8=ACCEPT, with the messages in their INBOX."""
    service = services()
    old, new = logged_in(service), enabled(logged_in(service))
    for message in messages:
        put(old, message=message)
    for client in (old, new):
        assert b"s OK" in client.ask(b"s EXAMINE INBOX\r\n")
    return old, new


def surrogate(message: bytes) -> bytes:
    return apply_edits(message, message_edits(message))


ITEMS = [
    b"BODY.PEEK[]", b"BODY.PEEK[HEADER]", b"BODY.PEEK[TEXT]", b"BODY.PEEK[1]", b"BODY.PEEK[1.MIME]", b"BODY.PEEK[2]",
    b"BODY.PEEK[2.HEADER]", b"ENVELOPE", b"BODY", b"BODYSTRUCTURE", b"BODY.PEEK[HEADER.FIELDS (Subject From)]",
    b"BODY.PEEK[HEADER.FIELDS (Subject X-Odd)]", b"BODY.PEEK[HEADER.FIELDS.NOT (To)]", b"BODY.PEEK[]<3.40>",
    b"BODY.PEEK[2]<5.300000>", b"BINARY.PEEK[1]", b"BINARY.SIZE[2]", b"(ENVELOPE BODYSTRUCTURE)", b"(UID ENVELOPE)",
    b"(ENVELOPE BODY.PEEK[HEADER.FIELDS (Subject From)])", b"(FLAGS BODY.PEEK[])", b"(BODY BODY.PEEK[HEADER])", b"RFC822.HEADER",
]  # fmt: skip


@pytest.mark.parametrize("item", ITEMS)
def test_a_client_without_utf8_gets_what_it_would_get_of_the_surrogates(item: bytes) -> None:
    """Answered one by one and all at once, cached or not; the oracle is a store that has the surrogates."""
    old, new = both(*ALL)
    oracle, _ = both(*map(surrogate, ALL))
    wanted = [ask(oracle, b"FETCH %d %b" % (number, item)) for number in range(1, len(ALL) + 1)]
    kept = [ask(new, b"FETCH %d %b" % (number, item)) for number in range(1, len(ALL) + 1)]
    for _ in range(2):
        assert [ask(old, b"FETCH %d %b" % (number, item)) for number in range(1, len(ALL) + 1)] == wanted
        assert ask(old, b"FETCH 1:* %b" % item) == b"".join(wanted)
        assert ask(new, b"FETCH 1:* %b" % item) == b"".join(kept)
        assert ask(old, b"FETCH 1:3 %b" % item) == b"".join(kept[:3])


def test_messages_are_as_they_are_with_utf8() -> None:
    _, new = both(*ALL)
    for number, message in enumerate(ALL, 1):
        assert b"{%d}\r\n%b" % (len(message), message) in ask(new, b"FETCH %d BODY.PEEK[]" % number)
        assert summarise(message).envelope in ask(new, b"FETCH %d ENVELOPE" % number)


def test_sizes_are_those_of_the_messages() -> None:
    """RFC 6858 3 permits it, as the size of a surrogate is known only when all headers have been read."""
    old, new = both(*ALL)
    sizes = [int(size) for size in re.findall(rb"RFC822\.SIZE (\d+)", ask(old, b"FETCH 1:* RFC822.SIZE"))]
    assert sizes == [len(message) for message in ALL]
    assert ask(new, b"FETCH 1:* RFC822.SIZE") == ask(old, b"FETCH 1:* RFC822.SIZE")


def test_a_large_surrogate_can_be_fetched_piece_by_piece() -> None:
    old, _ = both(LARGE)
    wanted = surrogate(LARGE)
    found = b"".join(section(old, b"[]<%d.50000>" % at) for at in range(0, len(wanted), 50_000))
    assert found == wanted


@given(LINES)
def test_the_envelope_is_that_of_the_served_header(lines: bytes) -> None:
    client = opened(lines + b"X: y\r\n\r\nbody\r\n", examine=True)
    header = section(client, b"[HEADER]")
    assert header.isascii()
    assert b"(ENVELOPE " + summarise(header).envelope + b")" in ask(client, b"FETCH 1 ENVELOPE")
    assert summarise(header + b"body\r\n").body_structure in ask(client, b"FETCH 1 BODYSTRUCTURE")


def test_pipelined_commands_get_surrogates() -> None:
    old, _ = both(*ALL)
    answer = old.ask(b"".join(b"t%d FETCH %d BODY.PEEK[HEADER]\r\n" % (n % 6, n % 6 + 1) for n in range(24)))
    assert answer.count(b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=") == 4
    assert "Grüße".encode() not in answer


def test_a_mailbox_must_be_closed_first() -> None:
    client = opened(PLAIN)
    assert client.ask(b"a ENABLE CONDSTORE UTF8=ACCEPT\r\n") == b"a BAD close the mailbox first\r\n"
    assert "CONDSTORE" not in client.session.enabled
    client.ask(b"a UNSELECT\r\n")
    enabled(client)


def test_search_has_no_charset() -> None:
    old, new = both(NEW)
    assert old.ask(b"a SEARCH CHARSET UTF-8 SUBJECT {6+}\r\nGr\xc3\xbc\xc3\x9f\r\n").startswith(b"* SEARCH 1\r\n")
    assert new.ask(b'a SEARCH SUBJECT "Gr\xc3\xbc\xc3\x9f"\r\n').startswith(b"* SEARCH 1\r\n")
    assert new.ask(b"a SEARCH CHARSET UTF-8 ALL\r\n").startswith(b"a BAD ")
    assert new.ask(b'a SEARCH SUBJECT "Gr\xc3"\r\n').startswith(b"a BAD ")


def test_append_takes_utf8_data() -> None:
    old, new = both(PLAIN)
    assert b"a OK" in new.ask(b"a APPEND INBOX (\\Flagged) UTF8 (~{%d+}\r\n%b)\r\n" % (len(NEW), NEW))
    assert NEW in ask(new, b"FETCH 2 BODY.PEEK[]")
    two = b"a APPEND INBOX UTF8 (~{%d+}\r\n%b) {%d+}\r\n%b\r\n" % (len(NEW), NEW, len(PLAIN), PLAIN)
    assert b"a OK" in new.ask(two)
    catenated = b"a APPEND INBOX CATENATE (UTF8 (~{%d+}\r\n%b) TEXT {2+}\r\nab)\r\n" % (len(NEW), NEW)
    assert b"a OK" in new.ask(catenated)
    assert NEW + b"ab" in ask(new, b"FETCH 5 BODY.PEEK[]")
    assert b"a BAD" in old.ask(b"a APPEND INBOX UTF8 (~{%d+}\r\n%b)\r\n" % (len(NEW), NEW))
    for broken in (
        b"UTF8 ({4+}\r\nabcd)",
        b"UTF8 (~{4+}\r\nabcd",
        b"UTF8 ~{4+}\r\nabcd",
        b"UTF8 (~{4+}\r\nabcd))",
        b"UTF8",
    ):
        assert b"a BAD" in new.ask(b"a APPEND INBOX %b\r\n" % broken), broken
    assert b"MESSAGES 5" in ask(new, b"STATUS INBOX (MESSAGES)")
