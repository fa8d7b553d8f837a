"""Whatever a message is like: bounded time and memory, well-formed values (a hang is what the time limit is for)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.header_summary import HeaderSummary
from mailserver.message.render import summarise
from mailserver.message.structure import MAX_DEPTH, MAX_PARTS, Part, parse_structure
from mailserver.message.summary import KEPT_LIMIT
from mailserver.message.text import MessageText
from tests.corpus import hostile, nested_multiparts, python_messages
from tests.message import notation

HOSTILE = dict(hostile())


def check(source: bytes) -> None:
    summary = summarise(source)
    notation.check_envelope(notation.read(summary.envelope))
    notation.check_body(notation.read(summary.body), extended=False)
    notation.check_body(notation.read(summary.body_structure), extended=True)
    assert len(summary.fields) <= KEPT_LIMIT + 2
    text = HeaderSummary.of_message(source).text().text
    text.encode("utf-8")
    assert "\0" not in text
    assert "\r" not in text
    texts = MessageText(source)
    for text in (texts.header, texts.body, texts.inner_headers):
        text.encode("utf-8")
    check_tree(source, parse_structure(source))


def check_tree(source: bytes, root: Part) -> None:
    """Each part within the one around it, in order, and not too many of them."""
    todo = [(root, 1)]
    count = 0
    assert (root.start, root.end) == (0, len(source))
    while todo:
        part, depth = todo.pop()
        count += 1
        assert depth <= MAX_DEPTH + 1
        assert 0 <= part.start <= part.body <= part.end <= len(source)
        at = part.body
        for child in part.children:
            assert at <= child.start, "a part overlaps the one before it"
            assert child.end <= part.end
            at = child.end
            todo.append((child, depth + 1))
    # Multiparts that end without a part get an empty one.
    assert count <= 2 * (MAX_PARTS + MAX_DEPTH)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    check(HOSTILE[name])


@pytest.mark.parametrize("name", python_messages())
def test_python_messages(name: str) -> None:
    check(python_messages()[name])


def test_every_truncation_of_a_nested_message() -> None:
    inner = b"Subject: =?utf-8?q?in?=\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n"
    inner += b"--in\r\n\r\ntext\r\n--in\r\nContent-Type: text/html; charset=utf-8\r\n"
    inner += b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<b>=C3=A4</b>\r\n--in--\r\n"
    report = b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a.test\r\n\r\nAction: failed\r\n"
    source = (
        b'From: "a" <a@b.test>\r\nContent-Type: multipart/report; boundary="out er"\r\n\r\nprologue\r\n--out er\r\n'
    )
    source += report + b"--out er\r\nContent-Type: message/rfc822\r\n\r\n" + inner + b"--out er--\r\nepilogue"
    for end in range(len(source) + 1):
        check(source[:end])


def test_levels_beyond_the_bound_are_text() -> None:
    """The innermost part that is told apart holds all the rest."""
    source = nested_multiparts(MAX_DEPTH + 50) + b"\r\nend"
    part = parse_structure(source)
    depth = 1
    while part.children:
        assert len(part.children) == 1
        part = part.children[0]
        depth += 1
    assert depth == MAX_DEPTH
    assert (part.type, part.subtype) == (b"text", b"plain")
    assert source[part.body : part.end].endswith(b"--b%d.\r\n\r\nend" % (MAX_DEPTH + 49))


def test_parts_beyond_the_bound_are_text_of_the_last() -> None:
    root = parse_structure(HOSTILE["100,000 parts"])
    assert len(root.children) == MAX_PARTS - 1
    assert root.children[0].end - root.children[0].body == 1
    assert root.children[-1].end == len(HOSTILE["100,000 parts"])


PIECES = st.sampled_from(
    [
        b"--a", b"--a--", b"--ab", b"--b", b"--", b"\r\n", b"\r\n\r\n", b"\n", b"\0", b" ", b"x", b"\xff", b'"', b"\\", b"(", b")",
        b"Content-Type: ", b"multipart/mixed; boundary=a", b"multipart/digest; boundary=ab", b"message/rfc822", b"text/html",
        b"; charset=", b"Content-Disposition: attachment; filename*0=", b"Content-Language: en, ", b"From: ", b"To: ", b"a@b",
        b"<", b">", b",", b":", b";", b"grp", b"=?utf-8?b?", b"=?utf-7?q?+2AA-?=", b"?=", b"%41", b"''",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40).map(b"".join))
def test_any_octets(source: bytes) -> None:
    check(source)
