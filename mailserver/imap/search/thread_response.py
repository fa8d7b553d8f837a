"""The THREAD response (RFC 5256 4), written without recursion: threads may be nested without limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from mailserver.store.order.forest import Forest

_PART: Final = 5000
"""Pieces between two yields."""


def write_threads(forest: Forest, numbers: Sequence[int]) -> Iterator[bytes]:
    """Yield the parts of the response; `numbers` has the number of each position."""
    yield b"* THREAD"
    pieces: list[bytes] = [b" "] if forest.roots else []
    for members in forest.roots:
        if len(members) > 1:
            pieces.append(b"(")
        todo: list[int] = list(reversed(members))
        while todo:
            at = todo.pop()
            if at < 0:
                pieces.append(b")")
                continue
            pieces.append(b"(%d" % numbers[at])
            below = forest.children.get(at, ())
            while len(below) == 1:
                at = below[0]
                pieces.append(b" %d" % numbers[at])
                below = forest.children.get(at, ())
            if below:
                pieces.append(b" ")
                todo.append(_END)
                todo += reversed(below)
            else:
                pieces.append(b")")
            if len(pieces) >= _PART:
                yield b"".join(pieces)
                pieces = []
        if len(members) > 1:
            pieces.append(b")")
    pieces.append(b"\r\n")
    yield b"".join(pieces)


_END: Final = -1
"""In place of a position: the end of a list."""
