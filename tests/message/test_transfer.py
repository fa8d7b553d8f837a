"""Transfer encodings piece by piece: as at once, however the pieces are cut."""

from __future__ import annotations

import base64
import binascii
import quopri
import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import UnknownEncoding
from mailserver.message import binary
from mailserver.message.binary import without_binary
from mailserver.message.structure import parse_structure
from mailserver.message.text import all_parts
from mailserver.message.transfer import KNOWN, decoder, encoded_base64
from tests.corpus import python_messages


def decoded(data: bytes, encoding: bytes, cuts: list[int]) -> bytes:
    decode = decoder(encoding)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [decode.decode(data[low:high]) for low, high in pairwise(places)]
    return b"".join([*pieces, decode.finish()])


CUTS = st.lists(st.integers(0, 400), max_size=20)


@given(st.binary(max_size=300), CUTS)
def test_what_is_encoded_comes_back(data: bytes, cuts: list[int]) -> None:
    assert decoded(base64.encodebytes(data), b"base64", cuts) == data
    assert b"".join(encoded_base64(data)).replace(b"\r\n", b"") == base64.b64encode(data)
    text = quopri.encodestring(data.replace(b"\r", b"").replace(b"\n", b"\r\n"))
    assert decoded(text, b"quoted-printable", cuts) == data.replace(b"\r", b"").replace(b"\n", b"\r\n")
    for encoding in (b"7bit", b"8bit", b"binary"):
        assert decoded(data, encoding, cuts) == data


@given(st.binary(max_size=300), st.text("=AB \t\r\nz+/-", max_size=300), CUTS)
def test_anything_is_decoded_alike_however_it_is_cut(data: bytes, text: str, cuts: list[int]) -> None:
    for source in (data, text.encode()):
        for encoding in KNOWN:
            assert decoded(source, encoding, cuts) == decoded(source, encoding, [])


def test_a_long_run_of_spaces_is_decoded_in_linear_time() -> None:
    """Quadratic time is half a minute, for which all other threads wait."""
    began = time.process_time()
    for line in (b" " * 60_000 + b"x\r\n", b" \t" * 30_000 + b"x\r\n", b" " * 200_000 + b"x"):
        assert decoded(line, b"quoted-printable", []) == line
    assert decoded(b"x" + b" \t" * 30_000 + b"\r\ny", b"quoted-printable", []) == b"x\r\ny"
    assert time.process_time() - began < 10, "a hang"


def test_long_lines_are_not_held() -> None:
    decode = decoder(b"quoted-printable")
    sizes = [len(decode.decode(b"=41" * 50_000)) for _ in range(4)]
    assert sum(sizes[1:]) >= 150_000 - 50_000
    assert sum(sizes) + len(decode.finish()) == 200_000


@pytest.mark.parametrize(
    ("encoding", "data", "wanted"),
    [
        (b"base64", b" aGVs \r\n  bG8=\r\n", b"hello"),
        (b"base64", b"aGVsbG8=aGVsbG8=", b"hello"),
        (b"base64", b"aGVsb", b"hel"),
        (b"base64", b"aGVsbG", b"hell"),
        (b"base64", b"", b""),
        (b"quoted-printable", b"a  \t\r\nb=  \r\nc =\r\n", b"a\r\nbc "),
        (b"quoted-printable", b"=3D=C3=BC=xy=", b"=\xc3\xbc=xy"),
        (b"quoted-printable", b"end  ", b"end"),
    ],
)
def test_decoding_is_lenient(encoding: bytes, data: bytes, wanted: bytes) -> None:
    for cut in range(len(data) + 1):
        assert decoded(data, encoding, [cut]) == wanted


# --- binary content that is appended

BINARY = b"a\0b\xff\r\nc\rd\n" * 1000


def message(encoding: bytes, body: bytes) -> bytes:
    return b"Subject: x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
        encoding,
        body,
    )


def mixed(*parts: bytes) -> bytes:
    return (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble"
        + b"".join(b"\r\n--b\r\n" + part for part in parts)
        + b"\r\n--b--\r\nepilogue\r\n"
    )


def content(source: bytes) -> list[bytes]:
    """Of each leaf part, decoded by Python."""
    found = []
    for part in all_parts(parse_structure(source)):
        if not part.children:
            data = source[part.body : part.end]
            found.append(binascii.a2b_base64(data) if part.encoding == b"base64" else data)
    return found


@pytest.mark.parametrize("encoding", [b"binary", b"BINARY (x)", b"8bit"])
def test_binary_content_becomes_base64_and_nothing_else_changes(encoding: bytes) -> None:
    for source in (
        message(encoding, BINARY),
        mixed(b"\r\ntext", message(encoding, BINARY), message(b"base64", b"YQ=="), b"\r\nmore"),
        mixed(b"Content-Type: message/rfc822\r\n\r\n" + message(encoding, BINARY)),
    ):
        pieces = without_binary(source)
        assert pieces is not None
        stored = b"".join(pieces)
        assert b"\0" not in stored
        assert b"\xff" not in stored
        assert [part.encoding for part in all_parts(parse_structure(stored))].count(b"base64") >= 1
        assert BINARY in content(stored)
        assert len(content(stored)) == len(content(source))
        assert stored.count(b"Subject: x\r\n") == source.count(b"Subject: x\r\n")
        assert without_binary(stored) is None


@pytest.mark.parametrize(
    "source", [message(b"binary", b"text\r\n"), message(b"8bit", b"\xff\r\n"), mixed(b"\r\nx"), b"", b"x"]
)
def test_what_can_be_stored_stays_as_it_is(source: bytes) -> None:
    assert without_binary(source) is None


@pytest.mark.parametrize(
    "source",
    [
        b"Subject: \0\r\n\r\nx",
        mixed(b"\r\nx").replace(b"preamble", b"\0"),
        mixed(b"\r\nx").replace(b"epilogue", b"\0"),
        mixed(b"X-A: \0\r\n\r\nx", message(b"binary", BINARY)),
        message(b"base64", b"YQ\0=="),
        message(b"x-unknown", b"\0"),
        b"\0",
    ],
)
def test_nul_elsewhere_is_refused(source: bytes) -> None:
    with pytest.raises(UnknownEncoding):
        without_binary(source)


@given(body=st.text("ab\r\n\0", max_size=30), size=st.integers(1, 9))
def test_binary_content_is_found_in_slices(body: str, size: int) -> None:
    """A slice is short, as other threads wait meanwhile, and its ends split no line end."""
    source = message(b"binary", body.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary, "_SLICE", size)
        is_encoded = without_binary(source) is not None
    assert is_encoded == bool(re.search(r"\0|\r(?!\n)|(?<!\r)\n", body))


def test_the_messages_of_pythons_own_tests_can_be_stored() -> None:
    for source in python_messages().values():
        pieces = without_binary(source)
        if pieces is not None:
            assert b"\0" not in b"".join(pieces)
