"""The text of a message for SEARCH: decoded (RFC 2047, transfer encodings, charsets) and folded.

BODY searches text parts alone, as nobody who searches for "plain" or "image" means the headers of parts. TEXT searches
everything.

HTML is included twice, as it stands and, if that differs, without tags and with its character references resolved: so
both an address in a link and a word with `&uuml;` are found.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Final

from mailserver.message import octet_search
from mailserver.message.encodings import codec_of, decode_text, decode_transfer
from mailserver.message.envelope import parse_addresses
from mailserver.message.headers import FIELD, decode_line, header_end, iterate_fields, parameter, unfold
from mailserver.message.structure import Part, parse_structure

TEXTS: Final = 1
"""Version of `MessageText` and `fold`: indexes of another version are made anew. At most 32767."""

TEXT_LIMIT: Final = 16 * 1024 * 1024
"""Octets of a message's text parts, as in the message, that are searched: it bounds memory."""

# Stops at the next "<", so that many of them without a ">" take linear time.
TAG: Final = re.compile(r"<[^<>]*+>")
SEARCHED_ADDRESSES: Final = frozenset({b"from", b"to", b"cc", b"bcc"})
# A comment or white space beside the @, which are no part of the address (RFC 5322 4.4).
_TORN: Final = re.compile(rb"[\s)]@|@[\s(]")
_LONG: Final = 4096
_BETWEEN: Final = re.compile(r"[\s<>,;:()]+")
_ADDRESSES_LIMIT: Final = 64 * 1024
# Python refuses to convert very long numbers.
_PIECE: Final = 16 * 1024
# Few texts have that many characters beyond ASCII in a row, and of ASCII none combines: the pattern is slow.
_LONG_OTHER: Final = b"\x80" * 128
_OTHERS: Final = bytes(128) + b"\x80" * 128
# Combining marks are no letters, but for two that become some.
_LONG_RUN: Final = re.compile(r"[\W\uff9e\uff9f]{64,}")
_RUN: Final = 32
"""Combining marks that are ordered together; no language has as many on one letter (UAX #15 13: 30)."""
HUGE_REFERENCE: Final = re.compile(r"&#[xX]?[0-9a-fA-F]{8,}+;?")


# White space and the colon after a name are changed in the texts.
_VISIBLE: Final = re.compile(r"[!-9;-~]+")
"""What is in a literal field exactly if it is in its octets."""
_INVISIBLE: Final = rb"[^!-9;-~]*+"
_MOST_WORDS: Final = 16
_MARK: Final = re.compile(rb"=\?|[\x80-\xff]")
_TO_SPACES: Final = bytes.maketrans(b"\t\n\r\f\v()", b" " * 7)


def fold(text: str) -> str:
    """Fold a text for comparisons: letter case and compatible characters do not count (as in RFC 5051)."""
    if text.isascii():
        return text.lower()
    if len(text) <= _PIECE:
        return _fold(text)
    # Each call below keeps all other threads waiting. Nothing combines over a space or a line's end.
    pieces = []
    at = 0
    while at < len(text):
        end = at + _PIECE
        if end < len(text):
            end = max(text.rfind(" ", at, end), text.rfind("\n", at, end)) + 1 or end
        pieces.append(_fold(text[at:end]))
        at = end
    return "".join(pieces)


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    # A character beyond ASCII has two octets at least.
    octets = text.encode("utf-8", "surrogatepass")
    if _LONG_OTHER in octets.translate(_OTHERS) and _LONG_RUN.search(text):
        return "".join(map(_normalised, _without_long_runs(text)))
    return _normalised(text)


def _without_long_runs(text: str) -> Iterator[str]:
    """Yield pieces without long runs of combining marks, which would take quadratic time to order."""
    at = 0
    for run in _LONG_RUN.finditer(text):
        for cut in range(run.start() + _RUN, run.end(), _RUN):
            yield text[at:cut]
            at = cut
    yield text[at:]


def _normalised(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    # One character may become eighteen: memory would not be bounded for a text of these.
    return folded if len(folded) <= _PIECE or len(folded) <= 4 * len(text) else text.casefold()


def field_text(name: bytes, value: bytes) -> str:
    """Make one field's line of HeaderText.text, before folding; `name` in lower case.

    FROM, TO, CC and BCC search the envelope (RFC 3501 6.4.4): an address that comments or spaces split in the field
    follows the value once more, as the envelope has it.
    """
    return line_text(name, unfold(value))


def line_text(name: bytes, line: bytes) -> str:
    """Make the `field_text` of an unfolded value."""
    text = decode_line(line)
    if name in SEARCHED_ADDRESSES and _is_torn(line):
        # Thousands of addresses are not each searched for in all of a long value.
        words = frozenset(_BETWEEN.split(text)) if len(text) > _LONG else None
        text += "".join([f" {address}" for address in _addresses(line) if address not in (words or text)])
    return f"\n{name.decode('ascii')}: {text}"


def _is_torn(line: bytes) -> bool:
    """Tell whether comments or spaces split an address in an unfolded value."""
    return _may_be_torn(line) and _TORN.search(line) is not None


def folded_line(name: bytes, line: bytes) -> str:
    """Fold the `line_text` of an unfolded value."""
    if _is_literal_line(name, line):
        return (b"\n%b: %b" % (name, line)).decode("ascii").lower()
    return fold(line_text(name, line))


def _is_literal_line(name: bytes, line: bytes) -> bool:
    """Tell whether an unfolded value needs no decoding."""
    return line.isascii() and b"=?" not in line and not (name in SEARCHED_ADDRESSES and _is_torn(line))


def _addresses(value: bytes) -> Iterator[str]:
    """Yield each mailbox@host."""
    for address in parse_addresses(value[:_ADDRESSES_LIMIT]):
        if address.mailbox and address.host:
            yield (address.mailbox + b"@" + address.host).decode("utf-8", "replace").replace("\n", " ")


def probe_of(needle: str) -> bytes:
    """Return the longest piece of a folded needle that is searched for in undecoded octets; empty if there is none."""
    return max(_VISIBLE.findall(needle), key=len, default="").encode("ascii")


@lru_cache(maxsize=64)
def _words_of(needle: str) -> re.Pattern[bytes] | None:
    """Return a pattern of the visible pieces of a folded needle, with anything invisible between; None for a single piece.

    Only the first pieces of a long needle count.
    """
    pieces = [re.escape(piece.encode("ascii")) for piece in _VISIBLE.findall(needle)[:_MOST_WORDS]]
    return re.compile(_INVISIBLE.join(pieces)) if len(pieces) > 1 else None


class MessageText:
    """The texts of one message, each made when it is first asked for, all folded."""

    def __init__(self, source: bytes) -> None:
        self._source = source

    # Each `lacks` tells whether plainly the texts do not contain a needle (folded, not empty), without decoding what needs no
    # decoding. False proves nothing. `probe` is the needle's `probe_of`.

    def header_lacks(self, needle: str, probe: bytes) -> bool:
        """Tell whether plainly the header does not contain the needle."""
        return self._outer.lacks(needle, probe)

    def inner_headers_lack(self, needle: str, probe: bytes) -> bool:
        """Tell whether plainly the headers of parts, and of messages in it, do not contain the needle."""
        return self._inner.lacks(needle, probe)

    @cached_property
    def _outer(self) -> _RawFields:
        return _RawFields(self._source[: header_end(self._source)])

    @cached_property
    def _inner(self) -> _RawFields:
        source = self._source
        # No line of one header continues a field of the one before.
        return _RawFields(b"\r\n\r\n".join([source[part.start : part.body] for part in self._inner_parts()]))

    def _inner_parts(self) -> Iterator[Part]:
        parts = all_parts(self._root)
        next(parts)
        return parts

    @cached_property
    def _root(self) -> Part:
        return parse_structure(self._source)

    @cached_property
    def header(self) -> str:
        """All fields of the message's header: for each "\n" + name + ": " + value."""
        return fold(_fields_text(self._source, 0, header_end(self._source)))

    @cached_property
    def inner_headers(self) -> str:
        """The fields of the parts, and of the messages in it, in the same form."""
        return fold("".join([_fields_text(self._source, part.start, part.body) for part in self._inner_parts()]))

    @cached_property
    def body(self) -> str:
        """The text parts, those of messages in it too."""
        return fold("\n".join([part_text(self._source, part, room) for part, room in self._text_parts()]))

    def body_lacks(self, needle: str) -> bool:
        """Tell whether plainly the text parts do not contain the needle, without decoding their charsets."""
        if not needle or not needle.isascii() or "\n" in needle:
            return False
        octets = needle.encode("ascii")
        return all(_part_lacks(self._source, part, room, octets) for part, room in self._text_parts())

    def _text_parts(self) -> Iterator[tuple[Part, int]]:
        """Yield each text part, and how many of its octets count."""
        room = TEXT_LIMIT
        for part in all_parts(self._root):
            if not part.children and part.family in (b"text", b"message"):
                yield part, room
                room = max(room - (part.end - part.body), 0)


class _RawFields:
    """The fields of one or several headers as they are in the source: most need no decoding to lack a needle.

    A field is literal if its folded text has the same visible characters as its octets in lower case, in the same runs.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.lowered = data.lower()

    def lacks(self, needle: str, probe: bytes) -> bool:
        """Tell whether no field contains the needle. False proves nothing.

        A text has one line for each field. So a needle without a line end is in one field, and in a literal one only if
        its probe is in the octets, and all its words are there in their order.
        """
        if "\n" in needle or not (probe or not needle.isascii()):
            return False
        if probe and probe in self.lowered:
            words = _words_of(needle)
            if words is None or words.search(self.lowered):
                return False
        return self._decoded is not None and not any(needle in line for line in self._decoded)

    @cached_property
    def _decoded(self) -> list[str] | None:
        """The folded texts of the fields that are not literal; None for octets that no field should have."""
        data = self._data
        if b"\0" in data:
            return None
        fields = _all_fields(data) if _may_be_torn(data) else _marked_fields(data)
        return [fold(line_text(name, line)) for name, line in fields if not _is_literal_line(name, line)]


def _all_fields(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and unfolded value of each field."""
    return ((name, unfold(value)) for name, value, _, _ in iterate_fields(data, 0, len(data)))


def _marked_fields(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Do `_all_fields` for fields with encoded words or octets beyond ASCII, which few have. Linear in the size."""
    is_ascii = data.isascii()
    at = 0
    while True:
        if is_ascii:
            mark = data.find(b"=?", at)
        else:
            found = _MARK.search(data, at)
            mark = found.start() if found else -1
        if mark < 0:
            return
        start = data.rfind(b"\n", at, mark) + 1 or at
        while start > at and data[start] in b" \t":
            start = data.rfind(b"\n", at, start - 1) + 1 or at
        field = FIELD.match(data, start)
        if field is not None and field.end() > mark:
            yield field[1].lower(), unfold(field[2])
            at = field.end()
        else:
            at = data.find(b"\n", mark) + 1 or len(data)


def _may_be_torn(data: bytes) -> bool:
    """Tell whether there may be an address that `field_text` repeats. A pattern would try each octet."""
    data = data.translate(_TO_SPACES)
    return b" @" in data or b"@ " in data


def all_parts(root: Part) -> Iterator[Part]:
    """Yield the part and all parts in it, in the order of the message."""
    todo = [root]
    while todo:
        part = todo.pop()
        yield part
        todo += reversed(part.children)


def part_text(source: bytes, part: Part, limit: int = TEXT_LIMIT) -> str:
    """Decode the first `limit` octets of a text part's body; see above for HTML."""
    data = decode_transfer(source[part.body : min(part.end, part.body + limit)], part.encoding.lower())
    text = decode_text(data, parameter(part.parameters, b"charset"))
    if part.subtype.lower() == b"html" and ("&" in text or "<" in text):
        visible = html.unescape(HUGE_REFERENCE.sub("\ufffd", TAG.sub("", text)))
        return f"{text}\n{visible}"
    return text


def _part_lacks(source: bytes, part: Part, limit: int, needle: bytes) -> bool:
    """Tell whether plainly the `part_text` does not contain the needle."""
    data = decode_transfer(source[part.body : min(part.end, part.body + limit)], part.encoding.lower())
    charset = parameter(part.parameters, b"charset")
    is_html = part.subtype.lower() == b"html"
    return octet_search.lacks(data, needle, codec_of(charset) if charset else None, is_html=is_html)


def _fields_text(source: bytes, start: int, end: int) -> str:
    return "".join([field_text(name, value) for name, value, _, _ in iterate_fields(source, start, end)])
