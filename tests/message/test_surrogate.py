"""Surrogates of messages with UTF-8 in headers (RFC 6858)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.header_summary import NO_LINES, HeaderSummary
from mailserver.message.headers import (
    decode_line,
    iterate_fields,
    parameter,
    parse_content_type,
    parse_disposition,
    unfold,
)
from mailserver.message.render import summarise
from mailserver.message.structure import Part, parse_structure
from mailserver.message.surrogate import NOBODY, apply_edits, message_edits, needs_surrogate, surrogate_lines
from tests.corpus import crlf
from tests.message.test_header_summary import FIELDS, as_sent

TEXTS = st.text(
    st.sampled_from('aZ09 äß€日😀é<>@,:;()"\\=?_.%*\t') | st.characters(exclude_categories=["Cs", "Cc"]), max_size=40
)


def surrogate(source: bytes) -> bytes:
    return apply_edits(source, message_edits(source))


def value(field: str) -> bytes:
    """The unfolded value of the surrogate of one field."""
    made = surrogate_lines(field.encode() + b"\r\n")
    assert made.isascii()
    assert max(map(len, made.split(b"\r\n"))) <= 998
    ((_, raw, start, end),) = iterate_fields(made, 0, len(made))
    assert (start, end) == (0, len(made))
    return unfold(raw)


def test_a_subject_is_encoded_words() -> None:
    assert value("Subject: Grüße") == b"=?utf-8?q?Gr=C3=BC=C3=9Fe?="
    long = "日本語の長い件名 " * 20
    assert decode_line(value(f"Subject: {long}")) == long.strip()
    assert decode_line(value("Subject: =?iso-8859-1?q?=E4?= ü")) == "ä ü"


def test_a_name_is_encoded_and_its_address_stays() -> None:
    assert value("From: Jürgen <j@example.org>") == b"=?utf-8?q?J=C3=BCrgen?= <j@example.org>"
    assert (
        value('To: "Ü, V" <"a b"@example.org>, b@example.net')
        == b'=?utf-8?q?=C3=9C=2C_V?= <"a b"@example.org>, b@example.net'
    )
    assert value("Cc: Größen: a@example.org, Bert <b@example.org>; , c@example.org").startswith(
        b"=?utf-8?q?Gr=C3=B6=C3=9Fen?=: a@example.org, Bert <b@example.org>;"
    )


def test_an_address_beyond_ascii_becomes_one_that_nobody_has() -> None:
    assert value("From: Anna <ännä@example.org>").endswith(b"?= <%b>" % NOBODY)
    assert decode_line(value("From: Anna <ännä@example.org>")).startswith("Anna <ännä@example.org> <")
    assert (
        value("From: ü@example.org, b@example.org")
        == b"=?utf-8?q?=C3=BC=40example=2Eorg?= <%b>, b@example.org" % NOBODY
    )


def test_a_domain_is_its_a_labels() -> None:
    assert value("To: a@bücher.example") == b"a@xn--bcher-kva.example"
    assert value("To: a@-ü-.example").endswith(b"<%b>" % NOBODY)


def test_parameters_are_extended() -> None:
    found = parse_disposition(
        value('Content-Disposition: attachment; filename="Zusammenfaßung und € 日本語.pdf"; size=3')
    )
    assert found is not None
    assert found[0] == b"attachment"
    assert parameter(found[1], b"filename") == "Zusammenfaßung und € 日本語.pdf"
    assert (b"size", b"3") in found[1]
    type_ = parse_content_type(value('Content-Type: application/pdf; name="ü.pdf"; charset="a b"'))
    assert type_ is not None
    assert type_[:2] == (b"application", b"pdf")
    assert parameter(type_[2], b"name") == "ü.pdf"
    assert parameter(type_[2], b"charset") == "a b"


@pytest.mark.parametrize(
    "field", ["Content-Type: multipart/mixed; boundary=ü", "Content-Type: text/ü; x=y", "Content-Type: ü/x"]
)
def test_a_type_that_would_change_stays(field: str) -> None:
    assert surrogate_lines(field.encode()) == field.encode()


def test_other_fields_are_left_out() -> None:
    header = crlf("X-Odd: ü\n and more\nSubject: a\nReceived: by ü\n\n".encode())
    assert surrogate_lines(header) == b"Subject: a\r\n\r\n"
    assert surrogate_lines(b"Subject: " + "ü".encode() * 20_000 + b"\r\n") == b""


def test_octets_that_are_not_utf8_stay() -> None:
    header = b"Subject: \xfcber\r\nFrom: \xc3 <a@example.org>\r\nTo: \xc3\xbc <b@example.org>\r\n\r\n\xfc"
    assert surrogate(header) == header.replace(b"\xc3\xbc <", b"=?utf-8?q?=C3=BC?= <")


def test_headers_of_parts_and_of_messages_in_it_are_replaced() -> None:
    inner = "Subject: Grüße\nX-Odd: ü\n\nTäxt\n"
    part = 'Content-Type: text/plain; name="ü"\nContent-Disposition: attachment; filename="ü"\n\nTäxt ü\n'
    source = crlf(
        f"Subject: plain\nContent-Type: multipart/mixed; boundary=b\n\n--b\n{part}"
        f"--b\nContent-Type: message/rfc822\n\n{inner}--b\nX-Odd: ü\n--b--\n".encode()
    )
    made = surrogate(source)
    assert made.startswith(source[: source.index(b'; name="')])
    assert made.count("Täxt".encode()) == 2
    assert made.count("ü".encode()) == 1
    assert b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n" in made
    assert shape(made) == shape(source)
    assert summarise(made).body_structure.isascii()


def shape(source: bytes) -> object:
    """The tree of a message, and the octets of the bodies at its leaves."""

    def of(part: Part) -> object:
        below = [of(child) for child in part.children]
        return part.type, part.subtype, part.multipart, part.encoding, below or source[part.body : part.end]

    return of(parse_structure(source))


NAMES = st.sampled_from(
    [
        "Subject",
        "From",
        "To",
        "Cc",
        "Bcc",
        "Reply-To",
        "Sender",
        "Resent-To",
        "Comments",
        "X-Other",
        "Content-Description",
        "Content-Disposition",
    ]
)
LINES = st.lists(st.tuples(NAMES, TEXTS), max_size=6).map(
    lambda fields: "".join(f"{name}: {text}\r\n" for name, text in fields).encode()
)


@given(LINES, LINES, TEXTS)
def test_the_surrogate_is_ascii_and_keeps_the_structure_and_ascii_fields(outer: bytes, inner: bytes, name: str) -> None:
    name = name.replace('"', "").replace("\\", "")
    body = (
        b"\r\nbody \xc3\xbc\r\n--b\r\n" + inner + f'Content-Type: text/plain; name="{name}"\r\n\r\nx\r\n'.encode()
        + b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"\r\nbody\r\n--b--\r\n"
    )  # fmt: skip
    source = outer + b"Content-Type: multipart/mixed; boundary=b\r\n" + body
    made = surrogate(source)
    assert shape(made) == shape(source)
    before = [part[2] for part in ascii_fields(source)]
    assert [field for field in before if field not in made] == []
    for part in all_parts(parse_structure(made)):
        assert made[part.start : part.body].isascii()
    assert message_edits(made) == []
    assert needs_surrogate(source) is (made != source)
    if source.isascii():
        assert made == source


def all_parts(root: Part) -> list[Part]:
    return [root, *[part for child in root.children for part in all_parts(child)]]


def ascii_fields(source: bytes) -> list[tuple[int, int, bytes]]:
    return [
        (start, end, source[start:end])
        for part in all_parts(parse_structure(source))
        for _, _, start, end in iterate_fields(source, part.start, part.body)
        if source[start:end].isascii()
    ]


@given(FIELDS, LINES)
def test_kept_lines_have_the_surrogate_of_the_header(fields: list[tuple[bytes, ...]], lines: bytes) -> None:
    header = as_sent(b"".join([part for field in fields for part in field])) + lines + b"\r\n"
    header = header[: header.find(b"\r\n\r\n") + 4] if not header.startswith(b"\r\n") else header[:2]
    whole, kept = HeaderSummary(surrogate_lines(header)), HeaderSummary(header).fields
    if kept != NO_LINES:
        of_kept = HeaderSummary(surrogate_lines(kept))
        assert (of_kept.envelope(), of_kept.fields) == (whole.envelope(), whole.fields)
