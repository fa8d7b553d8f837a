"""PARTIAL: a range of a result, or of the messages of UID FETCH, counted from the first or the last (RFC 9394, RFC 5267 4.4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeVar

from attrs import frozen

from mailserver.errors import BadSyntax
from mailserver.imap.capabilities import Capability
from mailserver.imap.wire.reader import Reader

T = TypeVar("T", bound=Sequence[int])

_RANGE: Final = re.compile(rb"(-?)([1-9][0-9]{0,9}):\1([1-9][0-9]{0,9})(?![0-9])")


@frozen
class PartialRange:
    """A partial-range (RFC 9394 4)."""

    text: bytes
    """For the response: from the first message that is counted to the last, as 500:400 is the same as 400:500 (RFC 9394 4)."""
    first: int
    last: int
    """Both included, from 1 on; `first` is the lower one."""
    from_end: bool
    """1 is the last message."""

    def of(self, numbers: T) -> T:
        """Return that part of a result, in the order of the result."""
        if self.from_end:
            count = len(numbers)
            return numbers[max(0, count - self.last) : max(0, count - self.first + 1)]  # type: ignore[return-value]
        return numbers[self.first - 1 : self.last]  # type: ignore[return-value]

    def of_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return that part of the numbers in rising half-open ranges, as such ranges."""
        count = sum(high - low for low, high in ranges)
        places = self.of(range(count))
        found = []
        before = 0
        for low, high in ranges:
            start, end = max(low, low + places.start - before), min(high, low + places.stop - before)
            if start < end:
                found.append((start, end))
            before += high - low
        return found


def read_partial(reader: Reader) -> PartialRange:
    """SP partial-range. Raises: BadSyntax."""
    reader.read_sp()
    match = reader.read_match(_RANGE, "a range such as 1:100 or -1:-100")
    low, high = sorted((int(match[2]), int(match[3])))
    if high >= 1 << 32:
        raise BadSyntax("the number is too large")
    sign = match[1]
    return PartialRange(b"%b%d:%b%d" % (sign, low, sign, high), low, high, bool(sign))


PARTIAL = Capability("PARTIAL", "RFC 9394", __name__, "partial")
