"""Canonical forms beside dkimpy's, in whatever pieces a body comes."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import dkim.canonicalization
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.dkim.canonical import BodyDigest, Form, HeaderField, MessageDigest, split_header

FORMS: tuple[Form, ...] = ("simple", "relaxed")
ORACLES: dict[str, Any] = {"simple": dkim.canonicalization.Simple, "relaxed": dkim.canonicalization.Relaxed}
LINES = st.lists(
    st.sampled_from([b"", b" ", b"\t", b"a", b" a", b"a ", b"a \t b", b"  \t ", b".", b"\xff\x00"]), max_size=8
)


def digest_of(form: Form, pieces: list[bytes]) -> bytes:
    digest = BodyDigest(form)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def expected(form: Form, body: bytes) -> bytes:
    return hashlib.sha256(ORACLES[form].canonicalize_body(body)).digest()


@pytest.mark.parametrize("form", FORMS)
@given(lines=LINES, cuts=st.lists(st.integers(0, 80), max_size=6))
def test_bodies_beside_dkimpy(form: Form, lines: list[bytes], cuts: list[int]) -> None:
    body = b"".join(line + b"\r\n" for line in lines)
    places = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    assert digest_of(form, pieces) == expected(form, body)


@pytest.mark.parametrize("form", FORMS)
@given(body=st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a"]), max_size=12).map(b"".join))
def test_any_cut_makes_no_difference(form: Form, body: bytes) -> None:
    whole = digest_of(form, [body])
    assert all(digest_of(form, [body[:at], body[at:]]) == whole for at in range(len(body) + 1))
    assert digest_of(form, [body[at : at + 1] for at in range(len(body))]) == whole


@pytest.mark.parametrize(
    ("form", "body", "canonical"),
    [
        pytest.param("simple", b"", b"\r\n", id="simple-empty"),
        pytest.param("relaxed", b"", b"", id="relaxed-empty"),
        pytest.param("simple", b"\r\n\r\n\r\n", b"\r\n", id="simple-empty-lines"),
        pytest.param("relaxed", b"\r\n\r\n\r\n", b"", id="relaxed-empty-lines"),
        pytest.param("relaxed", b" \r\n\t\r\n", b"", id="relaxed-white-lines"),
        pytest.param("simple", b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", id="simple-rfc6376-3.4.5"),
        pytest.param("relaxed", b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n", id="relaxed-rfc6376-3.4.5"),
        pytest.param("relaxed", b"a", b"a\r\n", id="relaxed-no-line-end"),
        pytest.param("simple", b"a\r\n\r\nb", b"a\r\n\r\nb\r\n", id="simple-no-line-end"),
        pytest.param("relaxed", b"a \r b \n", b"a \r b \n\r\n", id="relaxed-bare-ends-are-octets"),
    ],
)
def test_bodies(form: Form, body: bytes, canonical: bytes) -> None:
    assert digest_of(form, [body]) == hashlib.sha256(canonical).digest()


@pytest.mark.parametrize("form", FORMS)
def test_a_million_empty_lines_are_held_back_as_a_number(form: Form) -> None:
    digest = BodyDigest(form)
    for _ in range(100):
        digest.update(b"\r\n" * 10_000)
        assert len(digest._held) <= 2
    digest.update(b"end\r\n")
    assert digest.digest() == hashlib.sha256(b"\r\n" * 1_000_000 + b"end\r\n").digest()


def test_a_limit_hashes_the_start_of_the_canonical_form() -> None:
    digest = BodyDigest("relaxed", 3)
    digest.update(b"a  b c\r\n")
    assert digest.digest() == hashlib.sha256(b"a b").digest()
    assert digest.length == len(b"a b c\r\n")


FIELDS = [
    pytest.param(b"SUBJect : AbC \r\n", b"subject:AbC\r\n", id="case-and-end"),
    pytest.param(b"A: X\r\n", b"a:X\r\n", id="rfc6376-3.4.5-a"),
    pytest.param(b"B : Y\t\r\n\tZ  \r\n", b"b:Y Z\r\n", id="rfc6376-3.4.5-b"),
    pytest.param(b"To:\r\n  \t a\xc3\xa9\r\n\r\n"[:-2], b"to:a\xc3\xa9\r\n", id="folded-at-once"),
    pytest.param(b"To: a:b\t:\t c\r\n", b"to:a:b : c\r\n", id="colons"),
    pytest.param(b"Cc:\r\n", b"cc:\r\n", id="empty"),
]


@pytest.mark.parametrize(("raw", "relaxed"), FIELDS)
def test_fields(raw: bytes, relaxed: bytes) -> None:
    field = HeaderField(b"x", raw)
    assert (field.canonical("relaxed"), field.canonical("simple")) == (relaxed, raw)
    name, _colon, value = raw.partition(b":")
    [(oracle_name, oracle_value)] = dkim.canonicalization.Relaxed.canonicalize_headers([(name, value)])
    assert oracle_name + b":" + oracle_value == relaxed


def test_a_header_is_split() -> None:
    header = b"A: 1\r\n 2\r\nb :3\r\nno field\r\nC: 4\r\n"
    assert split_header(header) == [HeaderField(b"a", b"A: 1\r\n 2\r\n"), HeaderField(b"b", b"b :3\r\n")]
    assert [field.raw for field in split_header(b"A: 1\r\nB: 2")] == [b"A: 1\r\n", b"B: 2\r\n"]


@pytest.mark.parametrize(
    ("message", "body"),
    [
        pytest.param(b"A: 1\r\n\r\nbody\r\n", b"body\r\n", id="usual"),
        pytest.param(b"\r\nbody\r\n", b"body\r\n", id="no-header"),
        pytest.param(b"A: 1\r\n", b"", id="no-body"),
        pytest.param(b"A: 1\r\n\r\n", b"", id="empty-body"),
        pytest.param(b"A: 1\r\n\r\n\r\n\r\nx\r\n", b"\r\n\r\nx\r\n", id="body-begins-empty"),
    ],
)
def test_the_body_of_a_message_that_comes_in_pieces(message: bytes, body: bytes) -> None:
    for at in range(len(message) + 1):
        digest = MessageDigest(BodyDigest("relaxed"))
        digest.update(message[:at])
        digest.update(message[at:])
        assert digest.digest() == digest_of("relaxed", [body]), at
