"""The surrogate of a message in a file: the file, with the edits of `surrogate` in place of the fields that they replace."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

from mailserver.message.headers import header_end
from mailserver.message.limits import SEEN
from mailserver.message.surrogate import Edit, header_edits, message_edits

PIECE = 64 * 1024
"""Octets that are read at once."""


class Readable(Protocol):
    """A message file; `store.interfaces.MessageFile` says more."""

    size: int

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Read these octets; fewer at the end."""

    def read_now(self, offset: int, count: int) -> bytes | None:
        """Read without waiting; None where that is not possible."""

    def close(self) -> None:
        """Close the file."""


def read_header(file: Readable) -> bytes:
    """The header with its empty line, or its first `limits.SEEN` octets. It is read in pieces, and nothing behind them."""
    header = b""
    end = 0
    while end == len(header) < min(SEEN, file.size) and (piece := file.read(end, PIECE)):
        header += piece
        end = header_end(header)
    return header[: min(end, SEEN)]


def edits_of_header(file: Readable) -> list[Edit]:
    """The edits of the message's own header."""
    header = read_header(file)
    # A field that is cut off is not replaced.
    return header_edits(header, 0, len(header) if len(header) < SEEN else file.size)


def edits_of_file(file: Readable) -> list[Edit]:
    """The edits of the whole message. It is held in memory whole only if it has 8-bit octets."""
    if all(file.read(at, PIECE).isascii() for at in range(0, file.size, PIECE)):
        return []
    return message_edits(file.read())


class SurrogateFile:
    """A message file with edits."""

    def __init__(self, original: Readable, edits: Sequence[Edit]) -> None:
        self.original = original
        self.edits = edits
        self._starts: list[int] = []
        """The places in the surrogate at which pieces begin: of the original and of edits in turn."""
        self._pieces: list[bytes | int] = []
        """The text of an edit, or the place in the original."""
        at = place = 0
        for start, end, text in [*edits, (original.size, original.size, b"")]:
            self._starts += place, place + start - at
            self._pieces += at, text
            place += start - at + len(text)
            at = end
        self.size = place

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Those octets, fewer at the end."""
        end = self.size if count is None else min(offset + count, self.size)
        return self._read(self.original.read, offset, end) or b""

    def read_now(self, offset: int, count: int) -> bytes | None:
        """Those octets, if they can be read without waiting."""
        return self._read(self.original.read_now, offset, min(offset + count, self.size))

    def close(self) -> None:
        """Close the original."""
        self.original.close()

    def _read(self, read: Callable[[int, int], bytes | None], at: int, end: int) -> bytes | None:
        found: list[bytes] = []
        index = bisect_right(self._starts, at) - 1
        while at < end:
            piece, start = self._pieces[index], self._starts[index]
            index += 1
            following = self._starts[index] if index < len(self._starts) else self.size
            wanted = min(end, following) - at
            if wanted <= 0:
                continue
            data = (
                piece[at - start : at - start + wanted]
                if isinstance(piece, bytes)
                else read(piece + at - start, wanted)
            )
            if not data:
                return b"".join(found) or data
            found.append(data)
            at += len(data)
            if len(data) < wanted:
                break
        return b"".join(found) or None
