"""ENVELOPE (RFC 3501 7.4.2), address lists of RFC 5322 3.4 and 4.4, and broken ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import corpus
from mailserver.message import envelope as envelopes
from mailserver.message.envelope import nstring, parse_addresses
from mailserver.message.headers import header_end, iterate_fields, unfold
from mailserver.message.render import summarise
from tests.message import notation

MISSING = (b"MISSING_MAILBOX", b"MISSING_DOMAIN")


def envelope(header: bytes) -> Any:
    value = notation.read(summarise(header.replace(b"\n", b"\r\n") + b"\r\nbody").envelope)
    notation.check_envelope(value)
    return value


def told(value: bytes) -> list[tuple[bytes | None, ...]]:
    return [(address.name, address.route, address.mailbox, address.host) for address in parse_addresses(value)]


def test_the_example_of_rfc_3501() -> None:
    """RFC 3501 7.4.2 and 8: A003."""
    found = envelope(
        b"Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\n"
        b"From: Terry Gray <gray@cac.washington.edu>\n"
        b"Subject: IMAP4rev1 WG mtg summary and minutes\n"
        b"To: imap@cac.washington.edu\n"
        b"cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\n"
        b"Message-Id: <B27397-0100000@cac.washington.edu>\n"
    )
    terry = [[b"Terry Gray", None, b"gray", b"cac.washington.edu"]]
    assert found == [
        b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)",
        b"IMAP4rev1 WG mtg summary and minutes",
        terry,
        terry,
        terry,
        [[None, None, b"imap", b"cac.washington.edu"]],
        [[None, None, b"minutes", b"CNRI.Reston.VA.US"], [b"John Klensin", None, b"KLENSIN", b"MIT.EDU"]],
        None,
        None,
        b"<B27397-0100000@cac.washington.edu>",
    ]


def test_absent_fields_are_nil_and_empty_ones_empty() -> None:
    """RFC 3501 7.4.2: "if the Date, Subject, In-Reply-To, and Message-ID header lines are absent ... NIL; if present
    but empty, the corresponding member of the envelope is the empty string"."""
    assert envelope(b"X: y\n") == [None] * 10
    assert envelope(b"Date:\nSubject: \nIn-Reply-To:\nMessage-ID:\nTo:\n") == [b"", b"", *[None] * 6, b"", b""]


def test_sender_and_reply_to_default_to_from() -> None:
    """RFC 3501 7.4.2: "absent in the RFC-2822 header, or are present but empty"."""
    anna = [[None, None, b"a", b"b.test"]]
    for extra in (b"", b"Sender: \nReply-To:\n", b"Reply-To: ,\n"):
        assert envelope(b"From: a@b.test\n" + extra)[2:5] == [anna, anna, anna]
    other = [[None, None, b"c", b"d.test"]]
    assert envelope(b"From: a@b.test\nSender: c@d.test\n")[2:5] == [anna, other, anna]


def test_repeated_fields() -> None:
    assert envelope(b"To: a@b.test\nSubject: one\nTo: c@d.test\nSubject: two\n")[1:6:4] == [
        b"one",
        [[None, None, b"a", b"b.test"], [None, None, b"c", b"d.test"]],
    ]


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        # RFC 5322 A.1.2, A.1.3, A.5, A.6.1
        (
            b'"Joe Q. Public" <john.q.public@example.com>',
            [(b"Joe Q. Public", None, b"john.q.public", b"example.com")],
        ),
        (
            b"Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
            [
                (b"Mary Smith", None, b"mary", b"x.test"),
                (None, None, b"jdoe", b"example.org"),
                (b"Who?", None, b"one", b"y.test"),
            ],
        ),
        (
            b'<boss@nil.test>, "Giant; \\"Big\\" Box" <sysservices@example.net>',
            [(None, None, b"boss", b"nil.test"), (b'Giant; "Big" Box', None, b"sysservices", b"example.net")],
        ),
        (
            b"A Group:Ed Jones <joe@a.test>,joe@where.test,John <jdoe@one.test>;",
            [
                (None, None, b"A Group", None),
                (b"Ed Jones", None, b"joe", b"a.test"),
                (None, None, b"joe", b"where.test"),
                (b"John", None, b"jdoe", b"one.test"),
                (None, None, None, None),
            ],
        ),
        (b"Undisclosed recipients:;", [(None, None, b"Undisclosed recipients", None), (None, None, None, None)]),
        (
            b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
            [(b"Pete", None, b"pete", b"silly.test")],
        ),
        (
            b"Mary Smith <@node.test:mary@example.net>, , jdoe@test   . example",
            [(b"Mary Smith", b"@node.test", b"mary", b"example.net"), (None, None, b"jdoe", b"test.example")],
        ),
        (b"<@a.test,@b.test:joe@c.test>", [(None, b"@a.test,@b.test", b"joe", b"c.test")]),
        # older forms
        (b"joe@x.test (Joe (the) Doe)", [(b"Joe (the) Doe", None, b"joe", b"x.test")]),
        (b'"quoted local"@x.test', [(None, None, b"quoted local", b"x.test")]),
        (b"a@[192.0.2.1]", [(None, None, b"a", b"[192.0.2.1]")]),
        (b"J. R. Doe <a@b.test>", [(b"J. R. Doe", None, b"a", b"b.test")]),
        (b"=?utf-8?q?x=2C_y?= <a@b.test>", [(b"=?utf-8?q?x=2C_y?=", None, b"a", b"b.test")]),
        # broken: the nearest address, never host NIL, which would begin a group
        (b"", []),
        (b" , ,", []),
        (b"Joe", [(None, None, b"Joe", MISSING[1])]),
        (b"Joe Doe", [(b"Joe Doe", None, *MISSING)]),
        (b"<>", [(None, None, *MISSING)]),
        (b"Joe <>", [(b"Joe", None, *MISSING)]),
        (b"joe@", [(None, None, b"joe", MISSING[1])]),
        (b"@x.test", [(None, None, MISSING[0], b"x.test")]),
        (b"<joe>", [(None, None, b"joe", MISSING[1])]),
        (b"<joe@x.test", [(None, None, b"joe", b"x.test")]),
        (b"joe@x.test>", [(None, None, b"joe", b"x.test")]),
        (b"a@x.test b@y.test", [(None, None, b"a", b"x.test")]),
        (b"Joe Doe a@x.test", [(b"Joe Doe", None, b"a", b"x.test")]),
        (b"foo <a@x.test> bar, b@y.test", [(b"foo", None, b"a", b"x.test"), (None, None, b"b", b"y.test")]),
        (b"grp: a@x.test", [(None, None, b"grp", None), (None, None, b"a", b"x.test"), (None, None, None, None)]),
        (b'"unterminated <a@x.test>', [(b"unterminated <a@x.test>", None, *MISSING)]),
        (b"(only a comment)", []),
    ],
)
def test_addresses(value: bytes, addresses: list[tuple[bytes | None, ...]]) -> None:
    assert told(value) == addresses


def test_the_simple_way_and_the_general_one_agree() -> None:
    """Lists of plain addresses take a short way; a comment at the end makes the same list take the other."""
    plain = [
        b"a@b.test", b"<a@b.test>", b'"x y" <a@b.test>', b"x y <a@b.test>", b"x. =?utf-8?q?y?= <a.b+c@d-e.test>",
        b"a@b.test, c@d.test", b" a@b.test ,x<c@d.test> ,<e@f.test>", b'"" <a@b.test>', b"x  y <a@b.test>",
        b"x <a@b.test> , y@z.test,", b"a@[192.0.2.1]", b"a@b.test>", b"<a@b.test", b'"x" a@b.test',
    ]  # fmt: skip
    for value in plain:
        assert told(value) == told(value + b", ()"), value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, b"NIL"),
        (b"", b'""'),
        (b"NIL", b'"NIL"'),
        (b'a"b\\', b'"a\\"b\\\\"'),
        (b"a\0b", b'"ab"'),
        (b"\xc3\xa4", b"{2}\r\n\xc3\xa4"),
        (b"a\r\nb", b"{4}\r\na\r\nb"),
        (b"\0\xe4", b"{1}\r\n\xe4"),
    ],
)
def test_nstring(value: bytes | None, written: bytes) -> None:
    assert nstring(value) == written


PIECES = st.lists(
    st.sampled_from(
        [
            b"Anna", b" ", b"  ", b"\t", b"a@b.test", b"<a@b.test>", b"<", b">", b"@", b",", b", ", b'"', b'"Bert, A" ', b'""',
            b'"a\\"b" ', b"=?utf-8?q?=C3=84?= ", b"(c)", b"a@[192.0.2.1]", b":", b";", b".", b"\\", b"\xe4", b"<x@y>,", b"group: ",
        ]
    ),
    max_size=12,
)  # fmt: skip


@given(PIECES)
def test_simple_addresses_are_rendered_as_the_reader_of_all_reads_them(pieces: list[bytes]) -> None:
    line = unfold(b"".join(pieces))
    assert envelopes._any_list(line) == envelopes.render_addresses(envelopes.parse_addresses(line))


def test_addresses_like_people_s_are_rendered_as_the_reader_of_all_reads_them() -> None:
    for seed in range(200):
        source = corpus.crlf(corpus.message(seed))
        for name, value, _start, _end in iterate_fields(source, 0, header_end(source)):
            if name in envelopes.ADDRESS_FIELDS:
                line = unfold(value)
                assert envelopes._any_list(line) == envelopes.render_addresses(envelopes._AddressReader(line).read())


@pytest.mark.parametrize("last", [b"a@b.test", b"a @ b.test"])
def test_a_long_list_is_rendered_like_a_short_one(last: bytes) -> None:
    line = b'Anna  A <a@b.test>, "B, C" <c@d.test>, e@f.test, ' * 1000 + last
    assert envelopes._any_list(line) == envelopes.render_addresses(envelopes._AddressReader(line).read())
