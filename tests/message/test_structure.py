"""Part trees (RFC 2046 5.1): examples of the RFC, and delimiters in every odd place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.content import MAX_BOUNDARY
from mailserver.message.structure import SOUGHT, SOUGHT_AT_LEAST, Part, find_part, parse_structure
from tests.corpus import crlf


def tree(source: bytes, part: Part | None = None) -> Any:
    """Bodies of leaves, lists for multiparts, ("message", ...) for message/rfc822."""
    part = parse_structure(source) if part is None else part
    if part.multipart:
        return [tree(source, child) for child in part.children]
    if part.message is not None:
        return ("message", tree(source, part.message))
    return source[part.body : part.end]


def multipart(boundary: bytes, body: bytes, subtype: bytes = b"mixed") -> bytes:
    return crlf(b"Content-Type: multipart/%b; boundary=%b\n\n%b" % (subtype, boundary, body))


INNER = b"--a\nContent-Type: multipart/alternative; boundary=%b\n\n"


def test_the_simple_example_of_rfc_2046() -> None:
    """RFC 2046 5.1.1."""
    source = crlf(
        b"From: Nathaniel Borenstein <nsb@bellcore.com>\n"
        b"MIME-Version: 1.0\n"
        b'Content-type: multipart/mixed; boundary="simple boundary"\n'
        b"\n"
        b"This is the preamble.  It is to be ignored.\n"
        b"\n"
        b"--simple boundary\n"
        b"\n"
        b"This is implicitly typed plain US-ASCII text.\nIt does NOT end with a linebreak.\n"
        b"--simple boundary\n"
        b"Content-type: text/plain; charset=us-ascii\n"
        b"\n"
        b"This is explicitly typed plain US-ASCII text.\nIt DOES end with a linebreak.\n"
        b"\n"
        b"--simple boundary--\n"
        b"\n"
        b"This is the epilogue.  It is also to be ignored.\n"
    )
    assert tree(source) == [
        b"This is implicitly typed plain US-ASCII text.\r\nIt does NOT end with a linebreak.",
        b"This is explicitly typed plain US-ASCII text.\r\nIt DOES end with a linebreak.\r\n",
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"Subject: x", b""),
        (b"Subject: x\r\n\r\nbody", b"body"),
        (multipart(b"a", b"--a\n\nx\n--a\n\ny\n--a--\n"), [b"x", b"y"]),
        # the delimiter right behind the empty line, the header, another delimiter
        (multipart(b"a", b"--a\n\n--a--\n"), [b""]),
        (multipart(b"a", b"--a\nContent-Type: text/html\n--a\n\ny\n--a--\n"), [b"", b"y"]),
        (multipart(b"a", b"--a\n--a\n--a--\n"), [b"", b""]),
        # no part, which RFC 2046 5.1 does not allow: an empty one
        (multipart(b"a", b"nothing\n"), [b""]),
        (multipart(b"a", b"--a--\n--a\n\nx\n"), [b""]),
        (multipart(b"a", b""), [b""]),
        # ends that are missing
        (multipart(b"a", b"--a\n\nx\n"), [b"x\r\n"]),
        (multipart(b"a", b"--a"), [b""]),
        (multipart(b"a", b"--a\n\nx\n--a--"), [b"x"]),
        # white space at a delimiter's end (RFC 2046 5.1.1, transport-padding), before it, and text before it
        (multipart(b"a", b"--a  \n\nx\n--a-- \n"), [b"x"]),
        (multipart(b"a", b"--a\n\n --a\nx--a\n--a--\n"), [b" --a\r\nx--a"]),
        # RFC 2046 5.1.1: "it is sufficient that the boundary appear in its entirety following the CRLF"
        (multipart(b"a", b"--abc\n\nx\n--a--\n"), [b"x"]),
        (multipart(b'"a b"', b"--a b\n\nx\n--a b--\n"), [b"x"]),
        (multipart(b'"a "', b"--a\n\nx\n--a--\n"), [b"x"]),
        # no boundary: RFC 2045 5.2
        (crlf(b"Content-Type: multipart/mixed\n\n--a\n"), b"--a\r\n"),
        (crlf(b'Content-Type: multipart/mixed; boundary=""\n\n--\n'), b"--\r\n"),
        (crlf(b"Content-Type: multipart/mixed; boundary*=utf-8''a%62\n\n--ab\n\nx\n--ab--\n"), [b"x"]),
        (crlf(b"Content-Type: multipart/mixed; boundary*0=a; boundary*1=b\n\n--ab\n\nx\n--ab--\n"), [b"x"]),
        # levels: an outer delimiter ends the inner ones
        (multipart(b"a", INNER % b"b" + b"--b\n\nx\n--a\n\ny\n--a--\n"), [[b"x"], b"y"]),
        (multipart(b"a", INNER % b"b" + b"--b\n\nx\n--b--\nepilogue\n--b\n\nz\n--a\n\ny\n--a--\n"), [[b"x"], b"y"]),
        # boundaries that begin with each other, either way, and the same one twice
        (multipart(b"a", INNER % b"ab" + b"--ab\n\nx\n--ab--\n--a\n\ny\n--a--\n"), [[b"x"], b"y"]),
        (
            crlf(
                b"Content-Type: multipart/mixed; boundary=ab\n\n--ab\nContent-Type: multipart/mixed; boundary=a\n\n"
                b"--a\n\nx\n--ab\n\ny\n--ab--\n"
            ),
            [[b"x"], b"y"],
        ),
        (multipart(b"a", INNER % b"a" + b"--a\n\nx\n--a--\n--a\n\ny\n--a--\n"), [[b"x"], b"y"]),
        # messages inside
        (crlf(b"Content-Type: message/rfc822\n\nSubject: x\n\ny"), ("message", b"y")),
        (
            multipart(b"a", b"--a\n\nSubject: x\n\ny\n--a\nContent-Type: text/plain\n\nz\n--a--\n", b"digest"),
            [("message", b"y"), b"z"],
        ),
        (multipart(b"a", b"--a\nContent-Type: message/rfc822\n\n--a--\n"), [("message", b"")]),
        (multipart(b"a", b"--a\nContent-Type: message/rfc822\n--a--\n"), [("message", b"")]),
        (
            multipart(b"a", b"--a\nContent-Type: Message/RFC822\n\n" + INNER[4:] % b"b" + b"--b\n\nx\n--a\n\ny\n--a--\n"),
            [("message", [b"x"]), b"y"],
        ),
    ],
)  # fmt: skip
def test_trees(source: bytes, expected: Any) -> None:
    assert tree(source) == expected


def test_part_numbers_of_rfc_3501() -> None:
    """RFC 3501 6.4.5: the example of a complex message."""
    source = crlf(
        b"Content-Type: multipart/mixed; boundary=a\n\n"
        b"--a\nContent-Type: text/plain\n\n1\n"
        b"--a\nContent-Type: application/octet-stream\n\n2\n"
        b"--a\nContent-Type: message/rfc822\n\n"
        b"Content-Type: multipart/mixed; boundary=b\n\n"
        b"--b\nContent-Type: text/plain\n\n3.1\n"
        b"--b\nContent-Type: application/octet-stream\n\n3.2\n--b--\n"
        b"--a\nContent-Type: multipart/mixed; boundary=c\n\n"
        b"--c\nContent-Type: image/gif\n\n4.1\n"
        b"--c\nContent-Type: message/rfc822\n\n"
        b"Content-Type: multipart/mixed; boundary=d\n\n"
        b"--d\nContent-Type: text/plain\n\n4.2.1\n"
        b"--d\nContent-Type: multipart/alternative; boundary=e\n\n"
        b"--e\nContent-Type: text/plain\n\n4.2.2.1\n"
        b"--e\nContent-Type: text/richtext\n\n4.2.2.2\n--e--\n"
        b"--d--\n--c--\n--a--\n"
    )
    root = parse_structure(source)
    for text in ("1", "2", "3.1", "3.2", "4.1", "4.2.1", "4.2.2.1", "4.2.2.2"):
        part = find_part(root, [int(number) for number in text.split(".")])
        assert part is not None, text
        assert source[part.body : part.end].decode() == text
    for numbers in ([5], [1, 1], [3, 3], [4, 1, 1], [4, 2, 2, 3], [4, 2, 2, 1, 1]):
        assert find_part(root, numbers) is None
    message = find_part(root, [4, 2])
    assert message is not None
    assert message.message is not None
    four = find_part(root, [4])
    assert four is not None
    assert len(four.children) == 2


def test_part_1_of_other_messages_is_the_body() -> None:
    """RFC 3501 6.4.5: "Non-[MIME-IMB] messages, and non-multipart [MIME-IMB] messages with no encapsulated message,
    only have a part 1"."""
    root = parse_structure(b"Subject: x\r\n\r\nbody")
    assert find_part(root, [1]) is root
    assert find_part(root, [2]) is None
    assert find_part(root, [1, 1]) is None
    forwarded = parse_structure(b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nbody")
    assert find_part(forwarded, [1]) is forwarded
    assert find_part(forwarded, [1, 1]) is forwarded.message
    assert find_part(forwarded, [1, 2]) is None


BODIES = st.sampled_from([b"", b"x", b"x\r\n", b"--\r\n--y", b"\r\n\r\nx", b"a--b0", b"-- b1"])
TREES = st.recursive(
    BODIES,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.tuples(st.just("message"), inner),
    max_leaves=8,
)


def written(node: Any, numbers: Iterator[int]) -> bytes:
    """A message or part whose tree is that."""
    if isinstance(node, bytes):
        return b"X: y\r\n\r\n" + node
    if isinstance(node, tuple):
        return b"Content-Type: message/rfc822\r\n\r\n" + written(node[1], numbers)
    boundary = b"=b%d=" % next(numbers)
    parts = b"".join(b"--%b\r\n%b\r\n" % (boundary, written(part, numbers)) for part in node)
    return b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\npreamble\r\n%b--%b--\r\nepilogue' % (
        boundary,
        parts,
        boundary,
    )


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_what_is_written_is_read(node: Any) -> None:
    assert tree(written(node, count())) == node


def depth_of(root: Part) -> int:
    return 1 + max((depth_of(child) for child in root.children), default=0)


def test_levels_around_all_of_a_large_message_are_looked_into_up_to_a_number_of_octets() -> None:
    def nested(lines: int) -> bytes:
        starts = (b"Content-Type: multipart/mixed; boundary=b%02d\r\n\r\n--b%02d\r\n" % (n, n) for n in range(90))
        ends = (b"\r\n--b%02d--\r\n" % n for n in reversed(range(90)))
        return b"".join(starts) + b"\r\n" + b"text\r\n" * lines + b"".join(ends)

    assert depth_of(parse_structure(nested(1000))) == 91
    large = nested(2_000_000)
    assert depth_of(parse_structure(large)) <= 2 + SOUGHT + (SOUGHT_AT_LEAST + len(large)) // len(large)


@pytest.mark.parametrize(("length", "parts"), [(70, 1), (MAX_BOUNDARY, 1), (MAX_BOUNDARY + 1, 0), (200_000, 0)])
def test_a_boundary_longer_than_a_line_is_none(length: int, parts: int) -> None:
    """Each search for one that has 200,000 octets begins with as much work."""
    boundary = b"b" * length
    source = multipart(boundary, b"--" + boundary + b"\n\npart\n--" + boundary + b"--\n")
    assert len(parse_structure(source).children) == parts
