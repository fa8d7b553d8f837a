"""IMAP URLs of messages and their parts (RFC 5092)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.imap.wire.imap_url import LONGEST, ImapUrl, NoSuchUrl, parse_url


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        (b"/INBOX/;UID=20", ImapUrl("INBOX", None, 20)),
        (b"INBOX/;uid=20", ImapUrl("INBOX", None, 20)),
        (b";UID=20", ImapUrl(None, None, 20)),
        (b";UID=20/;SECTION=1.2", ImapUrl(None, None, 20, b"1.2")),
        (b"/a/b;UIDVALIDITY=385759045/;UID=20", ImapUrl("a/b", 385759045, 20)),
        (b"/a/;UID=4294967295/;SECTION=HEADER", ImapUrl("a", None, 2**32 - 1, b"HEADER")),
        (b"/a/;UID=1/;section=1.HEADER.FIELDS%20(From%20To)", ImapUrl("a", None, 1, b"1.HEADER.FIELDS (From To)")),
        (b"/a/;UID=1/;SECTION=1/;PARTIAL=2.3", ImapUrl("a", None, 1, b"1", (2, 3))),
        (b"/a/;UID=1/;PARTIAL=0.1024", ImapUrl("a", None, 1, b"", (0, 1024))),
        (b"/a/;UID=1/;PARTIAL=7", ImapUrl("a", None, 1, b"", (7, 2**32 - 1))),
        (b"/%C3%A4%20%26&a=b@c:d!$'()*+,~/;UID=1", ImapUrl("ä &&a=b@c:d!$'()*+,~", None, 1)),
    ],
)
def test_urls(url: bytes, parsed: ImapUrl) -> None:
    assert parse_url(url) == parsed


@pytest.mark.parametrize(
    "url",
    [
        b"", b"/", b"/a", b"/a/", b"//host/a/;UID=1", b"imap://host/a/;UID=1", b"/a;UID=1", b"/a/;UID=0", b"/a/;UID=4294967296",
        b"/a/;UID=99999999999", b"/a/;UID=x", b"/a/;UID=1/", b"/a/;UID=1/;SECTION=", b"/a/;UID=1/;PARTIAL=1.0", b"/a/;UID=1?x",
        b"/a;UIDVALIDITY=0/;UID=1", b"/a;UIDVALIDITY=/;UID=1", b"/a b/;UID=1", b"/%zz/;UID=1", b"/%ff/;UID=1", b"/%00/;UID=1",
        b"/%0d%0a/;UID=1", b"/a/;UID=1/;SECTION=%00", b"/a/;UID=1/;PARTIAL=1/;SECTION=1", b"/\xff/;UID=1", b"/a/;UID=1;URLAUTH=x",
        b"/a/;UID=1\n", b"/" + b"a" * LONGEST + b"/;UID=1",
    ],
)  # fmt: skip
def test_what_is_no_such_url(url: bytes) -> None:
    with pytest.raises(NoSuchUrl):
        parse_url(url)


@given(st.one_of(st.binary(max_size=60), st.text("/;UIDSECTON=.0123%25PRL", max_size=80).map(str.encode)))
def test_no_octets_raise_anything_else(url: bytes) -> None:
    with contextlib.suppress(NoSuchUrl):
        parse_url(url)


def test_it_takes_linear_time() -> None:
    for piece in (b"/", b"a/", b"%41", b"/;UID=1", b";UIDVALIDITY=1", b"/;SECTION=1"):
        with pytest.raises(NoSuchUrl):
            parse_url((piece * LONGEST)[: LONGEST - 1] + b"\n")
