"""A matcher of many needles in one message, in small steps.

Problem: a thousand needles and a message of 60 MiB are minutes of work, during which no other operation of the account
would run.

Rule: the message's text comes in pieces (`text_pieces`). Each is compared with all needles that are not found yet, and
the generator pauses after every few milliseconds of comparisons. The end of each piece is kept for the next one, so
that a needle across two pieces is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs
from attrs import frozen

from mailserver.message.text import MessageText, probe_of
from mailserver.message.text_pieces import Piece, Stream, iterate_pieces

SMALL: Final = 128 * 1024
"""Octets of a message up to which its texts are made at once."""
_COMPARED: Final = 4 * 1024 * 1024
"""Octets times needles between two pauses: some milliseconds."""

_ANYWHERE: Final = frozenset(Stream)
_BODY: Final = frozenset({Stream.BODY, Stream.VISIBLE})


@frozen
class SearchTerm:
    """One text key of a search."""

    needle: str
    """Folded."""
    body_only: bool = False
    """Search the text parts alone."""
    field: str | None = None
    """Search only the header fields of that name (lower case)."""

    probe: bytes = attrs.field(init=False, default=attrs.Factory(lambda term: probe_of(term.needle), takes_self=True))
    """What is searched for in octets before they are decoded."""

    @property
    def streams(self) -> frozenset[Stream]:
        """The texts to search."""
        return frozenset({Stream.HEADER}) if self.field is not None else _BODY if self.body_only else _ANYWHERE

    def is_in(self, text: MessageText) -> bool:
        """Tell whether a message contains it."""
        needle, probe = self.needle, self.probe
        if self.field is not None:
            return not (needle and text.header_lacks(needle, probe)) and field_contains(text.header, self.field, needle)
        in_body = not text.body_lacks(needle) and needle in text.body
        if in_body or self.body_only or not needle:
            return in_body
        return (not text.header_lacks(needle, probe) and needle in text.header) or (
            not text.inner_headers_lack(needle, probe) and needle in text.inner_headers
        )


class MessageMatcher:
    """The search of one message."""

    def __init__(self, source: bytes, sought: Sequence[SearchTerm], small: int = SMALL) -> None:
        """`small`: octets of a message whose texts are made at once."""
        self.found = [False] * len(sought)
        """In the order of `sought`; complete once `run` is exhausted."""
        self.work = 0
        """Octets of text times needles that have been compared."""
        self._source = source
        self._sought = sought
        self._is_small = len(source) <= small

    @property
    def is_short(self) -> bool:
        """True if `match_at_once` takes no longer than a step of `run`."""
        return self._is_small and len(self._source) * len(self._sought) < _COMPARED

    def match_at_once(self) -> list[bool]:
        """Do `run` for a short message."""
        text = MessageText(self._source)
        self.found = [term.is_in(text) for term in self._sought]
        self.work = len(self._source) * len(self._sought)
        return self.found

    def run(self) -> Iterator[None]:
        """Search the message. It yields at pauses."""
        return self._at_once() if self._is_small else self._in_pieces()

    def _at_once(self) -> Iterator[None]:
        text = MessageText(self._source)
        compared = 0
        for number, key in enumerate(self._sought):
            self.found[number] = key.is_in(text)
            compared += len(self._source)
            if compared >= _COMPARED:
                self.work += compared
                compared = 0
                yield
        self.work += compared

    def _in_pieces(self) -> Iterator[None]:
        by_field: dict[str, list[int]] = {}
        open_: dict[Stream, list[int]] = {stream: [] for stream in Stream}
        for number, key in enumerate(self._sought):
            if key.field is not None:
                by_field.setdefault(key.field, []).append(number)
            else:
                for stream in key.streams:
                    open_[stream].append(number)
        overlap = max((len(key.needle) for key in self._sought), default=1) - 1
        tails = dict.fromkeys(Stream, "")
        has_header = bool(by_field) or bool(open_[Stream.HEADER])
        pieces = iterate_pieces(
            self._source, header=has_header, inner=bool(open_[Stream.INNER]), body=bool(open_[Stream.BODY])
        )
        for piece in pieces:
            yield
            if not piece.text:
                continue
            if piece.fields and by_field:
                yield from self._look_at_fields(piece, by_field)
            stream = piece.stream
            if open_[stream]:
                window = tails[stream] + piece.text
                yield from self._compare(window, open_[stream], self._needle_in(window))
                open_[stream] = [number for number in open_[stream] if not self.found[number]]
                tails[stream] = window[-overlap:] if overlap else ""
            if all(self.found):
                return

    def _look_at_fields(self, piece: Piece, by_field: dict[str, list[int]]) -> Iterator[None]:
        for name, value in piece.fields:
            if name in by_field:
                yield from self._compare(value, by_field[name], self._needle_in(value))

    def _needle_in(self, text: str) -> Callable[[int], bool]:
        return lambda number: self._sought[number].needle in text

    def _compare(self, text: str, numbers: Sequence[int], contains: Callable[[int], bool]) -> Iterator[None]:
        compared = 0
        for number in numbers:
            if self.found[number]:
                continue
            self.found[number] = contains(number)
            compared += len(text)
            if compared >= _COMPARED:
                self.work += compared
                compared = 0
                yield
        self.work += compared


def field_contains(text: str, name: str, needle: str) -> bool:
    """Tell whether a field of that name contains the needle, in lines "\\n" + name + ": " + value."""
    if needle not in text:
        return False
    start = f"\n{name}: "
    at = text.find(start)
    while at >= 0:
        at += len(start)
        end = text.find("\n", at)
        if text.find(needle, at, end if end >= 0 else len(text)) >= 0:
            return True
        at = text.find(start, at - 1 if end < 0 else end)
    return False
