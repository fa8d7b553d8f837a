"""Headers that are too large are found while a message comes, wherever `parse_structure` would see one."""

from __future__ import annotations

import gc
import time
import tracemalloc
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import TooBig
from mailserver.message.header_size import HeaderSizeChecker
from mailserver.message.limits import MAX_HEADER
from mailserver.message.structure import Part, parse_structure
from tests.sweeps import choose

LIMIT = 60
"""Octets, in tests with messages that are made up."""
MARGIN = 2
"""Octets by which the two may differ: of the line end between a header and a delimiter."""


def parts_of(part: Part) -> Iterator[Part]:
    yield part
    for child in part.children:
        yield from parts_of(child)


def longest_header(source: bytes) -> int:
    return max(part.body - part.start for part in parts_of(parse_structure(source)))


def is_refused(source: bytes, limit: int = LIMIT, pieces: int = 7, step: int = 5) -> bool:
    watch = HeaderSizeChecker(limit, step)
    try:
        for at in range(0, len(source), pieces):
            watch.write(source[at : at + pieces])
        watch.finish()
    except TooBig:
        return True
    return False


LINES = st.sampled_from(
    [
        b"\r\n", b"\r\n", b"--a\r\n", b"--a--\r\n", b"--ab\r\n", b"--ab--\r\n", b"--abc\r\n", b"--a", b"--ab",
        b"Content-Type: multipart/mixed; boundary=a\r\n", b"Content-Type: multipart/digest; boundary=ab\r\n",
        b"Content-Type: multipart/mixed; boundary=abc\r\n", b"Content-Type: message/rfc822\r\n",
        b"x\r\n", b"X: y\r\n", b"y" * 30 + b"\r\n", b"Z: " + b"z" * 40 + b"\r\n", b"-", b"\r\n-", b" ",
    ]
)  # fmt: skip
SOURCES = st.lists(LINES, max_size=25).map(b"".join)


@settings(max_examples=choose(400, whole=1500), deadline=None)
@given(SOURCES, st.integers(1, 40), st.sampled_from([1, 9, 1000]))
def test_it_sees_the_headers_that_the_structure_has(source: bytes, pieces: int, step: int) -> None:
    longest = longest_header(source)
    if longest <= LIMIT - MARGIN:
        assert not is_refused(source, pieces=pieces, step=step), (longest, source)
    elif longest > LIMIT + MARGIN:
        assert is_refused(source, pieces=pieces, step=step), (longest, source)


@settings(max_examples=300, deadline=None)
@given(SOURCES, st.integers(1, 40), st.sampled_from([1, 9, 1000]))
def test_line_ends_count_as_they_are_sent(source: bytes, pieces: int, step: int) -> None:
    unix = source.replace(b"\r\n", b"\n")
    assert is_refused(unix, pieces=pieces, step=step) == is_refused(source, pieces=pieces, step=step)


def header(size: int) -> bytes:
    """With its empty line."""
    lines = b"X-Line: 1234567890123456789012345678901234567890\r\n" * (size // 50 - 1)
    return lines + b"X: " + b"y" * (size - len(lines) - 7) + b"\r\n\r\n"


MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
MESSAGE = b"Content-Type: message/rfc822\r\n\r\n"
BASE64 = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
BEFORE = {
    "its own": b"",
    "of a part": MIXED + b"\r\nfirst\r\n--b\r\n",
    "of a message": MESSAGE,
    "of a message in a part": MIXED + MESSAGE,
    "of a part that is far behind": MIXED + b"\r\n" + b"x" * 76 + b"\r\n" * 9 + b"y" * 900_000 + b"\r\n--b\r\n",
}


@pytest.mark.parametrize("where", BEFORE)
def test_where_headers_are(where: str) -> None:
    for size, refused in ((MAX_HEADER, False), (MAX_HEADER + 8, True)):
        source = BEFORE[where] + header(size) + b"body\r\n"
        assert is_refused(source, MAX_HEADER, pieces=10_000, step=16384) is refused


@pytest.mark.parametrize(
    "before", [b"Subject: x\r\n\r\n", MIXED + b"Content-Transfer-Encoding: base64\r\n\r\n", MIXED + b"\r\n--c\r\n"]
)
def test_bodies_are_no_headers(before: bytes) -> None:
    lines = b"YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo=\r\n" * 40_000
    assert not is_refused(before + lines, MAX_HEADER, pieces=10_000, step=16384)


def test_a_message_without_an_empty_line_is_a_header() -> None:
    assert is_refused(b"a" * (MAX_HEADER + 1), MAX_HEADER, pieces=10_000, step=16384)


HOSTILE = {
    "no end": b"a:b\r\n" * 2_000_000,
    "delimiters": MIXED + b"\r\n--b\r\n" * 1_000_000,
    "near delimiters": b"".join(
        b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (b"b" * n, b"b" * n) for n in range(1, 90)
    )
    + b"\r\n--b" * 1_000_000,
    "a long boundary": b"Content-Type: multipart/mixed; boundary=" + b"b" * 200_000 + b"\r\n\r\n" + b"\r\n--b" * 1_000_000,
    "a delimiter's line without end": MIXED[:-2] + b"x" * 8_000_000,
    "messages": MESSAGE * 300_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_time_and_memory_are_bounded(name: str) -> None:
    source = HOSTILE[name]
    watch = HeaderSizeChecker()
    tracemalloc.start()
    began = time.process_time()
    try:
        for at in range(0, len(source), 65536):
            watch.write(source[at : at + 65536])
        watch.finish()
    except TooBig:
        pass
    took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 20, "a hang"
    assert peak < 16 * MAX_HEADER


@pytest.mark.parametrize("message", [b"Subject: x\r\n\r\n" + b"y" * 1000, b"x" * 1000])
def test_nothing_of_a_message_is_kept_until_a_garbage_collection(message: bytes) -> None:
    gc.disable()
    try:
        checker = HeaderSizeChecker()
        checker.write(message)
        checker.finish()
        kept = weakref.ref(checker)
        del checker
        assert kept() is None
    finally:
        gc.enable()
