"""FETCH BINARY (RFC 3516): as Python decodes each part; large parts in pieces; what cannot be decoded hinders nothing else."""

from __future__ import annotations

import base64
import email
import random
import re

import pytest

from benchmarks import corpus
from mailserver.imap.fetch import binary
from mailserver.message.structure import find_part, parse_structure
from mailserver.store.memory import MemoryMessage
from tests.corpus import crlf, python_messages
from tests.fakes import Client
from tests.imap.fetching import ask, opened, put_foreign

UNKNOWN = b"Content-Transfer-Encoding: x-rot13\r\n\r\ncynva\r\n"


def items(answer: bytes) -> dict[bytes, bytes]:
    """The BINARY items of one FETCH response."""
    found: dict[bytes, bytes] = {}
    at = answer.index(b"(") + 1
    while match := re.compile(rb" ?(BINARY\S*) (?:~?\{(\d+)\}\r\n|(\d+))").match(answer, at):
        at = match.end()
        if match[2] is not None:
            size = int(match[2])
            found[match[1]] = answer[at : at + size]
            at += size
        else:
            found[match[1]] = match[3]
    assert answer[at : at + 3] in (b")\r\n", b" FL"), answer[at : at + 40]
    return found


def fetch(client: Client, number: int, section: bytes, partial: bytes = b"") -> tuple[int, bytes]:
    """Size and content."""
    answer = items(ask(client, b"FETCH %d (BINARY.SIZE[%b] BINARY.PEEK[%b]%b)" % (number, section, section, partial)))
    start = b"<%b>" % partial[1:].partition(b".")[0] if partial else b""
    return int(answer[b"BINARY.SIZE[%b]" % section]), answer[b"BINARY[%b]%b" % (section, start)]


def leaves(message: email.message.Message, numbers: tuple[int, ...] = ()) -> list[tuple[bytes, bytes, bytes]]:
    """(section, octets, decoded octets) of each leaf part that Python decodes as RFC 2045 has it."""
    if message.get_content_maintype() == "message":
        return []
    if message.is_multipart():
        parts = message.get_payload()
        return [each for at, part in enumerate(parts, 1) for each in leaves(part, (*numbers, at))]
    encoding = (message["Content-Transfer-Encoding"] or "7bit").strip().lower()
    if encoding not in {"7bit", "8bit", "base64", "quoted-printable"}:
        return []
    octets = message.get_payload(decode=False).encode("utf-8", "surrogateescape")
    return [(".".join(map(str, numbers or (1,))).encode(), octets, message.get_payload(decode=True))]


@pytest.mark.parametrize("source", ["people", "python"])
def test_it_is_as_python_decodes(source: str) -> None:
    if source == "people":
        messages = [corpus.crlf(corpus.message(seed)) for seed in range(60)]
    else:
        messages = list(python_messages().values())
    client = opened()
    compared = 0
    for number, message in enumerate(messages, 1):
        put_foreign(client, message)
        parsed = email.message_from_bytes(message)
        if parsed.defects or any(part.defects for part in parsed.walk()):
            continue
        root = parse_structure(message)
        for section, octets, content in leaves(parsed):
            part = find_part(root, tuple(map(int, section.split(b"."))))
            if part is None or message[part.body : part.end].rstrip() != octets.rstrip():
                continue  # Python sees other parts: tests/corpus/deviations.txt
            size, found = fetch(client, number, section)
            assert size == len(found), (number, section)
            # Python keeps the spaces at the end of lines.
            assert re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", found) == re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", content), (
                number,
                section,
            )
            compared += 1
    assert compared > 40


def large(kind: bytes) -> tuple[bytes, bytes]:
    """A message with a part of that encoding, and the part decoded."""
    source = random.Random(3516)
    if kind == b"base64":
        content = source.randbytes(1_500_000)
        encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    elif kind == b"quoted-printable":
        content = "größer und länger\r\n".encode() * 60_000
        encoded = content.replace("ö".encode(), b"=C3=B6").replace("ä".encode(), b"=C3=A4")
    else:
        content = encoded = b"0123456789abcde\0" * 60_000
    message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\n"
    return message + b"Content-Transfer-Encoding: %b\r\n\r\n%b\r\n--b--\r\n" % (kind, encoded), content


@pytest.mark.parametrize("kind", [b"base64", b"quoted-printable", b"binary"])
def test_large_parts(kind: bytes) -> None:
    message, content = large(kind)
    client = opened()
    put_foreign(client, message)
    assert fetch(client, 1, b"2") == (len(content), content)
    for first, count in (
        (0, 10),
        (len(content) - 5, 100),
        (700_000, 200_000),
        (65_535, 65_538),
        (len(content), 5),
        (5, 900_000),
    ):
        wanted = content[first : first + count]
        assert fetch(client, 1, b"2", b"<%d.%d>" % (first, count)) == (len(content), wanted), (first, count)


def test_a_size_is_measured_once_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    message, content = large(b"base64")
    client = opened()
    put_foreign(client, message)
    reads: list[int | None] = []
    real = MemoryMessage.read

    def read(self: MemoryMessage, offset: int = 0, count: int | None = None) -> bytes:
        reads.append(count)
        return real(self, offset, count)

    monkeypatch.setattr(MemoryMessage, "read", read)
    line = b"FETCH 1 (BINARY.SIZE[2])"
    assert items(ask(client, line))[b"BINARY.SIZE[2]"] == b"%d" % len(content)
    # Once whole for the structure, which is cached; then in pieces.
    assert reads.count(None) == 1
    assert max(each for each in reads if each is not None) <= binary.PIECE
    del reads[:]
    assert items(ask(client, line))[b"BINARY.SIZE[2]"] == b"%d" % len(content)
    assert reads == []


def test_the_cache_of_sizes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    binary._measures.clear()
    monkeypatch.setattr(binary, "_CACHED", 3)
    monkeypatch.setattr(binary, "PIECE", 10)
    client = opened(*[crlf(b"Content-Transfer-Encoding: base64\n\n" + b"YWJj\n" * (9 + number)) for number in range(8)])
    for number in range(1, 9):
        assert fetch(client, number, b"1")[0] == 3 * (8 + number)
    assert len(binary._measures) <= 3


def test_what_cannot_be_decoded_hinders_no_other_message_and_no_later_command() -> None:
    client = opened(b"\r\none\r\n", UNKNOWN, large(b"base64")[0], b"\r\nfour\r\n")
    answer = client.ask(b"t FETCH 1:4 (BODY.PEEK[] BINARY.PEEK[1] UID)\r\n")
    assert answer.endswith(b"t NO [UNKNOWN-CTE] the transfer encoding is not known\r\n")
    assert [int(each) for each in re.findall(rb"\r\n\* (\d) FETCH \(|^\* (\d) FETCH \(", answer)[0] if each] == [1]
    assert b"* 2 FETCH" not in answer
    assert b"* 3 FETCH" in answer
    assert b"* 4 FETCH" in answer
    assert client.ask(b"z NOOP\r\n") == b"z OK NOOP completed\r\n"
    # The structure of a large message is cached without its headers, and the encoding with it.
    message = large(b"base64")[0].replace(b"Transfer-Encoding: base64", b"Transfer-Encoding: x-own")
    put_foreign(client, message)
    for _ in range(2):
        assert b"t NO [UNKNOWN-CTE]" in client.ask(b"t FETCH 5 (BINARY.SIZE[2])\r\n")
        assert items(ask(client, b"FETCH 5 (BINARY.SIZE[1])")) == {b"BINARY.SIZE[1]": b"1"}


def test_sections_that_are_no_leaf_are_sent_as_they_are() -> None:
    inner = b"Subject: i\r\nContent-Transfer-Encoding: base64\r\n\r\naQ==\r\n"
    message = b"Content-Type: message/rfc822\r\n\r\n" + inner
    client = opened(message)
    assert fetch(client, 1, b"") == (len(message), message)
    assert fetch(client, 1, b"1") == (len(inner), inner)
    assert fetch(client, 1, b"1.1") == (1, b"i")
    assert fetch(client, 1, b"7") == (0, b"")
    put_foreign(client, b"Subject: x\r\n\r\nx\0y\r\n")
    assert b"BINARY[] ~{19}\r\n" in ask(client, b"FETCH 2 BINARY.PEEK[]")
    assert b"BINARY[1] ~{5}\r\nx\0y\r\n" in ask(client, b"FETCH 2 BINARY.PEEK[1]")
    assert b"BINARY[1]<2> {3}\r\ny\r\n" in ask(client, b"FETCH 2 BINARY.PEEK[1]<2.9>")
