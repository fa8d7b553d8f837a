"""Sections: what is answered from a summary and from the file must be the same octets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.fetch import header_fields
from mailserver.imap.fetch.header_fields import Fields, LongHeader, select_fields
from mailserver.imap.fetch.open_message import LoadedMessage
from mailserver.imap.fetch.section import Section, kept_lines
from mailserver.message.header_summary import KEPT
from mailserver.message.headers import header_end
from mailserver.message.render import summarise


def select_long(source: bytes, start: int, end: int, section: Section) -> bytes:
    """The same of a header that is not held in memory, octets of a message."""
    header = LongHeader(LoadedMessage(source), start, end, section.fields | {b"date"})
    assert set(header.measure()) <= {None}
    found = header.select(section)
    data = b"".join(piece for piece in found.pieces if piece is not None)
    assert len(data) == found.size
    return data


NAMES = st.sampled_from(
    [b"From", b"TO", b"subject", b"X-Label", b"Received", b"X-Other", b"Fro", b"Froms", b" From", b""]
)
ENDS = st.sampled_from([b": ", b":", b" :", b"\t: ", b"", b"::"])
VALUES = st.sampled_from(
    [b"a", b"", b"a\r\n b", b"a\r\n\tb\r\n c", b"From: x", b"\r\n From: y", b"\xff", b"\0", b"a\r\n b" * 12, b"a" * 50]
)
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
    fields = summarise(source).fields
    assert kept_lines(fields, wanted) == whole
    assert Fields(fields, KEPT).select(section) == select_fields(fields, section) == whole


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
    assert Fields(source, wanted).select(Section(text="HEADER.FIELDS", fields=wanted)) == chosen
    assert Fields(source, wanted).select(Section(text="HEADER.FIELDS.NOT", fields=wanted)) == rest
    assert len(chosen) + len(rest) == len(source) + 2
    assert select_fields(rest, Section(text="HEADER.FIELDS", fields=wanted)) == b"\r\n"


PARTIALS = st.none() | st.tuples(st.integers(0, 40), st.integers(1, 40))


@pytest.mark.parametrize("few", [0, 16])
@pytest.mark.parametrize("most", [0, 3, 1000])
@pytest.mark.parametrize(("piece", "long"), [(1, 9999), (2, 9999), (7, 20), (30, 20), (1, 20)])
def test_a_long_header_has_the_same_fields(
    monkeypatch: pytest.MonkeyPatch, piece: int, long: int, most: int, few: int
) -> None:  # fmt: skip
    """However its lines lie in the pieces that are read, and whether or not the places of its fields are noted."""
    monkeypatch.setattr(header_fields, "PIECE", piece)
    monkeypatch.setattr(header_fields, "FEW_NAMES", few)
    monkeypatch.setattr(header_fields, "LONG_FIELD", long)
    monkeypatch.setattr(header_fields, "MOST_PLACES", most)

    @settings(max_examples=80, deadline=None)
    @given(HEADERS, WANTED, st.booleans(), st.sampled_from(["HEADER.FIELDS", "HEADER.FIELDS.NOT"]), PARTIALS)
    def check(
        header: bytes, wanted: frozenset[bytes], is_ended: bool, text: str, part: tuple[int, int] | None
    ) -> None:  # fmt: skip
        source = header + b"\r\n" if is_ended else header.removesuffix(b"\r\n")
        section = Section(text=text, fields=wanted, partial=part)
        expected = select_fields(source, section)
        if part is not None:
            expected = expected[part[0] : part[0] + part[1]]
        around = b"To: before\r\n" + source + b"To: behind\r\n"
        start = len(b"To: before\r\n")
        assert select_long(around, start, start + len(source), section) == expected

    check()
