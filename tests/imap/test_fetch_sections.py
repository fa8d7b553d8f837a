"""Sections: what is answered from a summary and from the file must be the same octets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.section import Section, kept_lines, select_fields
from mailserver.message.head import KEPT
from mailserver.message.headers import header_end
from mailserver.message.render import summarise

NAMES = st.sampled_from(
    [b"From", b"TO", b"subject", b"X-Label", b"Received", b"X-Other", b"Fro", b"Froms", b" From", b""]
)
ENDS = st.sampled_from([b": ", b":", b" :", b"\t: ", b"", b"::"])
VALUES = st.sampled_from([b"a", b"", b"a\r\n b", b"a\r\n\tb\r\n c", b"From: x", b"\r\n From: y", b"\xff", b"\0"])
LINES = st.builds(lambda name, end, value: name + end + value + b"\r\n", NAMES, ENDS, VALUES)
HEADERS = st.lists(LINES, max_size=8).map(b"".join)
WANTED = st.frozensets(st.sampled_from([b"from", b"to", b"subject", b"x-label"]), min_size=1)


@settings(max_examples=300, deadline=None)
@given(HEADERS, WANTED)
def test_kept_lines_are_the_fields_of_the_header(header: bytes, wanted: frozenset[bytes]) -> None:
    assert wanted <= KEPT
    source = header + b"\r\nFrom: body\r\n"
    section = Section(text="HEADER.FIELDS", fields=wanted)
    whole = select_fields(source[: header_end(source)], section)
    assert kept_lines(summarise(source).fields, wanted) == whole


@settings(max_examples=200, deadline=None)
@given(HEADERS, WANTED)
def test_the_fields_and_all_others_are_the_header(header: bytes, wanted: frozenset[bytes]) -> None:
    """RFC 3501 6.4.5: HEADER.FIELDS.NOT has what HEADER.FIELDS has not; both end with the empty line."""
    source = header + b"\r\n"
    source = source[: header_end(source)]
    chosen = select_fields(source, Section(text="HEADER.FIELDS", fields=wanted))
    rest = select_fields(source, Section(text="HEADER.FIELDS.NOT", fields=wanted))
    assert chosen.endswith(b"\r\n")
    assert rest.endswith(b"\r\n")
    assert len(chosen) + len(rest) == len(source) + 2
    assert select_fields(rest, Section(text="HEADER.FIELDS", fields=wanted)) == b"\r\n"
