"""Signing, verified by dkimpy and by our own verifier; and what is not signed."""

from __future__ import annotations

import re

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.dkim.keys import BadKey, SigningKey, load_private, make_key
from mailserver.dkim.signer import MOST_FIELDS, OVERSIGNED, CannotSign, DomainSigner, signed_fields
from mailserver.dkim.verify import verify
from tests.dkim.samples import DOMAIN, NOW, find, find_octets, keys, signed

HEADER = (
    b"From: Anna <anna@example.test>\r\nTo: b@example.org\r\nSubject: s\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
)


def assert_verified(message: bytes) -> None:
    """Both signatures hold, for dkimpy and for us."""
    assert [dkim.DKIM(message).verify(idx=index, dnsfunc=find_octets) for index in (0, 1)] == [True, True]
    assert [result.verdict for result in verify(message, find, NOW)] == ["pass", "pass"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"Hello\r\n", id="usual"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\r\n" * 5, id="only-line-ends"),
        pytest.param(b".\r\n..\r\n.a\r\n", id="dots"),
        pytest.param("Grüße\r\n".encode(), id="8-bit"),
        pytest.param(b"\xff\xfe\x80\r\n", id="8-bit-no-utf-8"),
        pytest.param(b"x" * 998 + b"\r\n", id="longest-line"),
        pytest.param(b"x \t" * 30_000 + b"\r\n", id="long-white"),
        pytest.param(b" lead\r\ntrail \t\r\n\r\n \r\n", id="white"),
    ],
)
def test_bodies(body: bytes) -> None:
    assert_verified(signed(HEADER + b"\r\n" + body))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(b"References: <1@a>\r\n\t<2@a>\r\n <3@a>\r\n", id="folded"),
        pytest.param("Cc: Jürgen <j@example.org>\r\n".encode(), id="8-bit"),
        pytest.param(b"cC:\r\n", id="empty"),
        pytest.param(b"List-Id: <l.example.org>\r\nSender: anna@example.test\r\n", id="signed-where-present"),
        pytest.param(b"Cc: one@a\r\nX-Y: z\r\nCc: two@a\r\n", id="twice"),
        pytest.param(b"".join(b"X-%d: y\r\n" % number for number in range(10_000)), id="ten-thousand"),
    ],
)
def test_headers(fields: bytes) -> None:
    assert_verified(signed(HEADER + fields + b"\r\nHello\r\n"))


def test_a_space_before_the_colon() -> None:
    # dkimpy refuses such a message.
    message = signed(b"From : anna@example.test\r\n\r\nHello\r\n")
    assert [result.verdict for result in verify(message, find, NOW)] == ["pass", "pass"]


@settings(max_examples=30)
@given(
    value=st.lists(
        st.sampled_from([b" ", b"\t", b"\r\n ", b"a", b":", b";", b"=", b"b=", b"\xc3\xa9"]), max_size=12
    ).map(b"".join),
    body=st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"."]), max_size=10).map(b"".join),
)
def test_any_subject_and_body(value: bytes, body: bytes) -> None:
    assert_verified(signed(b"Subject: " + value + b"\r\nFrom: anna@example.test\r\n\r\n" + body + b"\r\n"))


@pytest.mark.parametrize("name", OVERSIGNED)
def test_a_field_that_is_added_breaks_the_signatures(name: str) -> None:
    message = signed(HEADER + b"\r\nHello\r\n")
    added = f"{name}: x\r\n".encode() + message
    assert [result.verdict for result in verify(added, find, NOW)] == ["fail", "fail"]
    assert not dkim.verify(added, dnsfunc=find_octets)
    assert [result.verdict for result in verify(b"X-Spam: no\r\n" + message, find, NOW)] == ["pass", "pass"]


def test_what_stands_behind_the_body_breaks_the_signatures() -> None:
    message = signed(HEADER + b"\r\nHello\r\n")
    assert b"; l=" not in message
    assert [result.reason for result in verify(message + b"more\r\n", find, NOW)] == ["the body was changed"] * 2


def test_the_form_of_the_fields() -> None:
    message = signed(HEADER + b"\r\nHello\r\n")
    assert re.findall(rb"^DKIM-Signature: v=1; a=(\S+);", message, re.MULTILINE) == [b"rsa-sha256", b"ed25519-sha256"]
    assert max(map(len, message.split(b"\r\n"))) <= 78
    assert re.findall(rb"t=(\d+);", message) == [b"1700000000"] * 2
    names = b"".join(message.partition(b"h=")[2].partition(b";")[0].split()).split(b":")
    assert [names.count(name.encode()) for name in OVERSIGNED] == [
        2 if name in ("from", "to", "subject", "date") else 1 for name in OVERSIGNED
    ]


def test_without_keys_there_is_no_signature() -> None:
    assert DomainSigner(DOMAIN, []).sign(b"From: a@example.test\r\n", bytes(32), NOW) == b""


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"To: a@example.org\r\n", id="no-from"),
        pytest.param(b"From: a@example.test\r\nFrom: b@example.test\r\n", id="two-from"),
        pytest.param(b"From: a@example.test\r\n" + b"Subject: s\r\n" * MOST_FIELDS, id="many-signed"),
        pytest.param(b"From: a@example.test\r\n" + b"To: s\r\n" * 30_000, id="very-many-signed"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_header_that_is_not_signed(header: bytes) -> None:
    with pytest.raises(CannotSign):
        signed_fields(header)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        pytest.param(SigningKey("s", "rsa", b"nonsense"), "no private key", id="nonsense"),
        pytest.param(SigningKey("s", "ed25519", b""), "no private key", id="empty"),
        pytest.param(SigningKey("s", "rsa", make_key("s", "ed25519").pem), "no rsa key", id="other-type"),
    ],
)
def test_a_bad_private_key(key: SigningKey, reason: str) -> None:
    with pytest.raises(BadKey, match=reason):
        load_private(key)


def test_a_private_key_is_not_shown() -> None:
    assert "PRIVATE" not in repr(keys())
