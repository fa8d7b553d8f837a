"""A preview of a message (RFC 8970): the beginning of its text, as one line of plain text.

The text comes from the first text part that has some: of alternatives the plain one, in the message before a message in it,
and never from an attachment or something encrypted. HTML is read without tags, style sheets and scripts. What answers a
message leaves out what it quotes, unless it consists of quotes. All is bounded: LARGEST octets of the message, and LONGEST
characters, which take at most some milliseconds.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final

from mailserver.message.encodings import codec_of, decode_text, decode_transfer
from mailserver.message.headers import parameter, parse_disposition
from mailserver.message.structure import Part, parse_structure
from mailserver.message.text import HUGE_REFERENCE

LARGEST: Final = 128 * 1024
"""Octets from the start of a message that are examined."""
LONGEST: Final = 200
"""Characters (RFC 8970 3.3)."""
_PART: Final = 64 * 1024
"""Octets of a plain text part that are decoded."""
_MOST_PARTS: Final = 50
"""Text parts that are tried."""
_WIDE: Final = frozenset({"utf-16", "utf-16-le", "utf-16-be", "utf-32"})

_SKIPPED: Final = re.compile(
    r"<!--.*?(?:-->|\Z)|<(style|script|title|template|svg)\b[^<>]*+>.*?(?:</\1\b[^<>]*+>|\Z)", re.DOTALL | re.IGNORECASE
)
_QUOTE: Final = re.compile(r"<(/?)blockquote\b[^<>]*+>", re.IGNORECASE)
_INLINE: Final = frozenset(
    [
        "a",
        "abbr",
        "b",
        "big",
        "bdi",
        "bdo",
        "cite",
        "code",
        "del",
        "em",
        "font",
        "i",
        "ins",
        "kbd",
        "mark",
        "o:p",
        "q",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "tt",
        "u",
        "var",
        "wbr",
    ]
)
"""Elements within a word; all others end one."""
_TAG: Final = re.compile(r"<(?:/?+([A-Za-z][\w:-]*+))?+[^<>]*+>")
# Fillers of newsletters: what has no width, or is there for its width alone.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]+"
)
_SPACES: Final = re.compile(r"\s+")
_ATTRIBUTION: Final = re.compile(
    r"(?:(?:on|am|le|il|el|op|den|em)\b.{4,300}(?:wrote|schrieb|a écrit|ha scritto|escribió|schreef|skrev|escreveu).{0,80}:"
    r"|-{2,} ?(?:original message|ursprüngliche nachricht|message d'origine).*)\s*",
    re.IGNORECASE,
)


def preview(source: bytes) -> str:
    """Return the preview of a message with CRLF line ends, of which LARGEST octets suffice; "" if there is no text. Never raises."""
    source = source[:LARGEST]
    quotes = ""
    for count, part in enumerate(_texts(parse_structure(source))):
        if count == _MOST_PARTS:
            break
        text = _decoded(source, part)
        found, quoted = _of_html(text) if part.subtype.lower() == b"html" else _of_plain(text)
        if found:
            return found
        quotes = quotes or quoted
    return quotes


def _texts(root: Part) -> Iterator[Part]:
    """Yield the text parts in the order in which they are tried."""
    inner: list[Part] = []
    todo = [root]
    while todo:
        part = todo.pop()
        if part.multipart:
            kind = part.subtype.lower()
            if kind == b"encrypted":
                continue
            children = part.children
            if kind == b"alternative":
                children = sorted(children, key=lambda child: child.content.subtype.lower() != b"plain")
            todo += reversed(children)
        elif part.message is not None:
            inner.append(part.message)
        elif (
            part.family == b"text"
            and part.subtype.lower() in (b"plain", b"html", b"enriched")
            and not _is_attached(part)
        ):
            yield part
        if not todo and inner:
            todo.append(inner.pop(0))


def _is_attached(part: Part) -> bool:
    value = part.fields.get(b"content-disposition")
    parsed = parse_disposition(value) if value is not None else None
    return parsed is not None and parsed[0].lower() == b"attachment"


def _decoded(source: bytes, part: Part) -> str:
    # A style sheet may stand before the text of HTML.
    limit = LARGEST if part.subtype.lower() == b"html" else _PART
    end = min(part.end, part.body + limit)
    is_cut = end < part.end or end == LARGEST
    data = decode_transfer(source[part.body : end], part.encoding.lower())
    charset = parameter(part.parameters, b"charset")
    if is_cut and (codec_of(charset) if charset else None) not in _WIDE:
        # Not in the middle of a character: the rest would not look like UTF-8.
        cut = max(data.rfind(b"\n"), data.rfind(b" "))
        data = data[: cut + 1] if cut > len(data) - 1024 else data
    return decode_text(data, charset)


def _of_plain(text: str) -> tuple[str, str]:
    """Return the text without quotes, and the quotes; one of them is enough."""
    kept: list[str] = []
    quoted: list[str] = []
    room = 2 * LONGEST
    examined = 0
    """Lines of `kept`, each of which is examined once, however many quotes follow it."""
    for line in text.splitlines():
        if line.startswith(">"):
            if len(kept) > examined:
                if _ATTRIBUTION.fullmatch(_SPACES.sub(" ", kept[-1])):
                    quoted.append(kept.pop())
                else:
                    examined = len(kept)
            if len(quoted) < LONGEST:
                quoted.append(line.lstrip("> "))
            continue
        if line == "-- " and any(map(str.strip, kept)):
            break
        if line.strip():
            kept.append(line[: 4 * LONGEST])
            room -= min(len(line), room)
            if not room and len(_line(" ".join(kept))) == LONGEST:
                break
    return _line(" ".join(kept)), _line(" ".join(quoted))


def _of_html(text: str) -> tuple[str, str]:
    """The same."""
    text = _SKIPPED.sub(" ", text)
    kept: list[str] = []
    quoted: list[str] = []
    depth = at = 0
    for mark in _QUOTE.finditer(text):
        (quoted if depth else kept).append(text[at : mark.start()])
        depth = max(0, depth - 1) if mark[1] else depth + 1
        at = mark.end()
    (quoted if depth else kept).append(text[at:])
    found = _line(_plain(" ".join(kept)))
    if _ATTRIBUTION.fullmatch(found):
        found = ""
    return found, "" if found else _line(_plain(" ".join(quoted)))


def _plain(text: str) -> str:
    text = _TAG.sub(lambda tag: "" if (tag[1] or "").lower() in _INLINE else " ", text)
    return html.unescape(HUGE_REFERENCE.sub("\ufffd", text))


def _line(text: str) -> str:
    """Return the first LONGEST characters as one line."""
    start = ""
    step = 16 * LONGEST
    for at in range(0, len(text), step):
        start = _SPACES.sub(" ", _INVISIBLE.sub("", start + text[at : at + step])).lstrip()
        if len(start) > LONGEST:
            break
    return start[:LONGEST].encode("utf-8", "replace").decode("utf-8").rstrip()
