"""Upper bounds of modseqs in blocks of messages, by which the few that are newer than a given one are found.

A client that resynchronizes asks for the messages that changed after a modseq: of a hundred thousand mostly none or a few.
Testing all of them takes milliseconds each time. With a bound for each block, only blocks with a newer message are read.

Rules:

*   A bound is never below a modseq of its block. It may be above: reading the block makes it exact again.
*   Only whole blocks have a bound. So messages may be appended without a change here.
*   After an expunge, messages stand in their own block or in the one before it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

BLOCK: Final = 64
"""Messages of a block."""
_UNKNOWN: Final = 2**63
_MANY: Final = 16
"""Blocks that are compared at once where none has a bound yet."""


class ModSeqBounds:
    """The bounds of one mailbox's modseqs, 8 octets for each BLOCK of them; none until `newer` is called."""

    __slots__ = ("_bounds",)

    def __init__(self) -> None:
        self._bounds = array("Q")

    def raised(self, low: int, high: int, modseq: int) -> None:
        """Note that messages at positions from `low` to below `high` changed; no modseq is above that one now."""
        bounds = self._bounds
        if not bounds:
            return
        for block in range(low // BLOCK, min((high - 1) // BLOCK + 1, len(bounds))):
            bounds[block] = modseq

    def removed(self, positions: Sequence[int]) -> None:
        """Note that the messages at these rising positions (at least one) are gone."""
        bounds, first = self._bounds, positions[0] // BLOCK
        if len(positions) > BLOCK:
            del bounds[first:]
        elif first < len(bounds):
            # The last whole block gets messages from one that has no bound.
            bounds[first:] = array("Q", map(max, bounds[first:], bounds[first + 1 :]))

    def newer(self, modseqs: array[int], since: int, low: int, high: int) -> list[tuple[int, int]]:
        """Return the positions from `low` to below `high` with a modseq above `since`, as rising half-open ranges."""
        bounds = self._bounds
        first, end = low // BLOCK, (high + BLOCK - 1) // BLOCK
        if len(bounds) == first:
            self._add_bounds(modseqs, end)
        unknown = range(max(first, len(bounds)), end)
        found: list[tuple[int, int]] = []
        for block in [block for block, bound in enumerate(bounds[first:end], first) if bound > since] + [*unknown]:
            start = block * BLOCK
            part = modseqs[start : start + BLOCK]
            if _is_uniform(part):
                newest = part[0]
                if newest > since:
                    _add(found, max(start, low), min(start + len(part), high))
            else:
                newer = [at for at, modseq in enumerate(part, start) if modseq > since]
                for at in newer:
                    if low <= at < high:
                        _add(found, at, at + 1)
                # A bound that let the block be read, and rightly, stays.
                newest = bounds[block] if newer and block < len(bounds) else max(part)
            if len(part) == BLOCK:
                if block >= len(bounds):
                    bounds.extend([_UNKNOWN] * (block + 1 - len(bounds)))
                bounds[block] = newest
        return found

    def _add_bounds(self, modseqs: array[int], end: int) -> None:
        """Add the bounds of many blocks at once, up to that block: mostly their messages came together."""
        bounds = self._bounds
        while len(bounds) + _MANY <= min(end, len(modseqs) // BLOCK):
            part = modseqs[len(bounds) * BLOCK : (len(bounds) + _MANY) * BLOCK]
            if _is_uniform(part):
                bounds.extend(part[:1] * _MANY)
                continue
            blocks = [part[at : at + BLOCK] for at in range(0, len(part), BLOCK)]
            bounds.extend([block[0] if _is_uniform(block) else max(block) for block in blocks])


def _is_uniform(part: array[int]) -> bool:
    """Tell whether all values are the same; comparing octets takes a tenth of the time of comparing numbers."""
    octets = part.tobytes()
    return octets == octets[: part.itemsize] * len(part)


def _add(ranges: list[tuple[int, int]], low: int, high: int) -> None:
    if ranges and ranges[-1][1] == low:
        ranges[-1] = ranges[-1][0], high
    elif low < high:
        ranges.append((low, high))
