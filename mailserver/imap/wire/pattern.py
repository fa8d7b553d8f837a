"""LIST patterns (RFC 3501 6.3.8): `*` matches anything, `%` anything but the separator. Linear time.

One integer, a bit a place, holds the places in the patterns that the name may have reached; each character moves it
on. Backtracking, and regular expressions with it, would take time that grows with the number of wildcards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mailserver.imap.wire.mailbox_names import MAX_NAME

_ADJACENT = re.compile(r"[*%]{2,}")


class Patterns:
    """Patterns for names of one separator. They are matched together, in the time of one as long as all of them."""

    def __init__(self, patterns: Iterable[str], separator: str) -> None:
        # Adjacent wildcards are one: then at most one place is skipped at a time.
        joined = [_ADJACENT.sub(lambda run: "*" if "*" in run[0] else "%", each) for each in dict.fromkeys(patterns)]
        self._is_all = "*" in joined
        self._separator = separator
        self._places: dict[str, int] = {}
        self._stars = self._percents = self._starts = self._ends = 0
        first = 0
        for pattern in joined:
            wild = pattern.count("*") + pattern.count("%")
            if len(pattern) - wild > MAX_NAME:
                # No name has as many characters: nothing is gone through for one.
                continue
            self._starts |= 1 << first
            for at, char in enumerate(pattern, first):
                if char == "*":
                    self._stars |= 1 << at
                elif char == "%":
                    self._percents |= 1 << at
                else:
                    self._places[char] = self._places.get(char, 0) | 1 << at
            end = first + len(pattern)
            self._ends |= 1 << end
            first = end + 1

    def matches(self, name: str) -> bool:
        """Does the whole name match one of them?"""
        if self._is_all:
            return True
        wild = self._stars | self._percents
        reached = self._starts
        reached |= (reached & wild) << 1
        for char in name:
            staying = self._stars if char == self._separator else wild
            reached = (reached & self._places.get(char, 0)) << 1 | reached & staying
            if not reached:
                return False
            reached |= (reached & wild) << 1
        return bool(reached & self._ends)
