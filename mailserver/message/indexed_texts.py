"""The texts of a message that a text index takes: header and body, as SEARCH compares them."""

from __future__ import annotations

from typing import Final

from mailserver.message.header_summary import HeaderSummary
from mailserver.message.matcher import SMALL
from mailserver.message.text import MessageText
from mailserver.message.text_pieces import Stream, iterate_pieces

_HALVES: Final = ((Stream.HEADER, Stream.INNER), (Stream.BODY, Stream.VISIBLE))


def indexed_texts(source: bytes, header_text: str | None, most: int) -> tuple[str, str] | None:
    """Return header and body, folded, of a message with CRLF line ends; None if they have more than `most` characters.

    `header_text`: its HeaderText.text, which SEARCH compares first, if that is known.
    """
    if len(source) <= SMALL:
        text = MessageText(source)
        header, body = text.header + text.inner_headers, text.body
    else:
        streams: dict[Stream, list[str]] = {stream: [] for stream in Stream}
        size = 0
        for piece in iterate_pieces(source):
            streams[piece.stream].append(piece.text)
            size += len(piece.text)
            if size > most:
                return None
        header, body = ("".join(streams[first] + streams[second]) for first, second in _HALVES)
    if len(header) + len(body) > most:
        return None
    if header_text is None:
        header_text = HeaderSummary.of_message(source).text().text
    # They differ if a very long header is folded otherwise than its parts.
    more = [line for line in header_text.split("\n") if line not in header]
    return "\n".join([header, *more]), body
