"""LIST patterns (RFC 3501 6.3.8): `*` matches anything, `%` anything but the separator. Linear time.

One integer, a bit a place, holds the places in the pattern that the name may have reached; each character moves it
on. Backtracking, and regular expressions with it, would take time that grows with the number of wildcards.
"""

from __future__ import annotations

import re

from mailserver.imap.wire.mailbox_names import MAX_NAME

_ADJACENT = re.compile(r"[*%]{2,}")


class Pattern:
    """One pattern for names of one separator."""

    def __init__(self, pattern: str, separator: str) -> None:
        # Adjacent wildcards are one: then at most one place is skipped at a time.
        pattern = _ADJACENT.sub(lambda run: "*" if "*" in run[0] else "%", pattern)
        self._is_all = pattern == "*"
        self._separator = separator
        self._end = 1 << len(pattern)
        self._places: dict[str, int] = {}
        self._stars = self._percents = 0
        for at, char in enumerate(pattern):
            if char == "*":
                self._stars |= 1 << at
            elif char == "%":
                self._percents |= 1 << at
            else:
                self._places[char] = self._places.get(char, 0) | 1 << at
        self.literal = not self._stars and not self._percents
        wild = (self._stars | self._percents).bit_count()
        if len(pattern) - wild > MAX_NAME:
            # No name has as many characters: nothing is gone through for one.
            self._end = 0
            self._places = {}

    def matches(self, name: str) -> bool:
        """Does the whole name match?"""
        if self._is_all:
            return True
        wild = self._stars | self._percents
        reached = 1
        reached |= (reached & wild) << 1
        for char in name:
            staying = self._stars if char == self._separator else wild
            reached = (reached & self._places.get(char, 0)) << 1 | reached & staying
            if not reached:
                return False
            reached |= (reached & wild) << 1
        return bool(reached & self._end)
