"""Messages to read: those that Python's own test suite ships, and hostile ones made on the spot. All with CRLF."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

MULTIPART = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"


def python_messages() -> dict[str, bytes]:
    """The messages of Python's package `email`, by file name.

    Debian packs them apart (libpython3.13-testsuite): there are none without it, but in continuous integration never none.
    """
    found: dict[str, bytes] = {}
    spec = importlib.util.find_spec("test")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted((Path(place) / "test_email" / "data").glob("msg_*.txt")):
            found[path.name] = crlf(path.read_bytes())
    assert found or not os.environ.get("CI"), "this Python comes without its test data: libpython3.13-testsuite"
    return found


def crlf(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def hostile() -> Iterator[tuple[str, bytes]]:
    """Messages that take quadratic time, deep recursion or much memory from a reader that is not careful."""
    yield "10,000 nested multiparts", nested_multiparts(10_000)
    yield "10,000 nested messages", b"Content-Type: message/rfc822\r\n\r\n" * 10_000 + b"x"
    yield "100,000 parts", MULTIPART + b"--a\r\n\r\nx\r\n" * 100_000
    yield "100,000 parts without an empty line", MULTIPART + b"--a\r\n" * 100_000
    yield "100,000 fields", b"X-A: b\r\n" * 100_000 + b"\r\nx"
    yield "100,000 Subjects", b"Subject: b\r\n" * 100_000 + b"\r\nx"
    yield "100,000 Tos", b"To: b@c.test\r\n" * 100_000 + b"\r\nx"
    yield "100,000 addresses", b"To: " + b"b@c.test, " * 100_000 + b"\r\n\r\nx"
    yield "a million parentheses", b"To: " + b"(" * 1_000_000 + b"\r\n\r\nx"
    yield "a million quotes", b"To: " + b'"' * 1_000_000 + b"\r\n\r\nx"
    yield "backslashes", b'To: "' + b"\\" * 1_000_000 + b"\r\n\r\nx"
    yield "at signs", b"To: " + b"a@ " * 300_000 + b"\r\n\r\nx"
    yield "groups", b"To: " + b"a:" * 300_000 + b"\r\n\r\nx"
    yield "colons far behind an at sign", b"To: " + b")" * 120_000 + b"@" + b":" * 120_000 + b"\r\n\r\nx"
    yield "spaced dots", b"To: a@b" + b" ." * 300_000 + b"\r\n\r\nx"
    yield "folds", b"Subject: " + b"\r\n x" * 300_000 + b"\r\n\r\nx"
    yield "a megabyte without colon", b"x" * 1_000_000 + b"\r\n\r\nx"
    yield "a megabyte of spaces", b"Subject:" + b" " * 1_000_000 + b"\r\n\r\nx"
    yield "encoded words", b"Subject: " + b"=?utf-8?q?x?= " * 70_000 + b"\r\n\r\nx"
    yield "beginnings of encoded words", b"Subject: " + b"=?" * 500_000 + b"\r\n\r\nx"
    yield "parameters", b"Content-Type: text/plain" + b"; a=b" * 150_000 + b"\r\n\r\nx"
    pieces = b"".join(b"; boundary*%d=b" % number for number in range(50_000))
    yield "a boundary in pieces", b"Content-Type: multipart/mixed" + pieces + b"\r\n\r\nx"
    yield "comments", b"Content-Type: text/plain " + b"(a)" * 300_000 + b"\r\n\r\nx"
    yield "boundaries that begin each other", prefixed_boundaries(90) + (b"\r\n--" + b"a" * 95) * 20_000
    yield "one boundary on all levels", MULTIPART + (b"--a\r\n" + MULTIPART) * 20_000
    yield "delimiters of nobody", MULTIPART + b"--a\r\n\r\n" + b"--\r\n" * 500_000
    openings = b"".join(
        b"--a\r\nContent-Type: multipart/mixed; boundary=z%d\r\n\r\n" % number for number in range(9_000)
    )
    yield "multiparts that never begin", MULTIPART + openings + b"x" * 1_000_000
    yield "tags that never end", b"Content-Type: text/html\r\n\r\n" + b"<" * 1_000_000
    yield "huge character references", b"Content-Type: text/html\r\n\r\n" + b"&#99999999999;&#" * 40_000 + b"9" * 99_999
    base64 = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    yield "torn base64", base64 + b"QUJD\r\n=\x00" * 200_000
    quoted = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    yield "torn quoted-printable", quoted + b"=\r\n=4" * 200_000
    yield "halves of surrogates", b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+2AA-" * 200_000
    yield "nothing", b""
    yield "only an empty line", b"\r\n"
    yield "only NUL", b"\0" * 1000
    yield "all octets", bytes(range(256)) * 100


def nested_multiparts(levels: int) -> bytes:
    """Each level begins the next, none ends."""
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d.\r\n\r\n--b%d.\r\n" % (level, level) for level in range(levels)
    )


def prefixed_boundaries(levels: int) -> bytes:
    """Boundaries a, aa, aaa, ... each inside the one before."""
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (b"a" * level, b"a" * level)
        for level in range(1, levels)
    )
