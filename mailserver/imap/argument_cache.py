"""A cache of parsed command arguments.

The arguments behind the message set of a FETCH, STORE or SEARCH hardly vary: mail programs send the same ones for years.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Final, TypeVar

from mailserver.imap.wire.reader import Reader

T = TypeVar("T", bound=Hashable)

LONGEST: Final = 1024
"""Octets of the longest text that is cached."""


class ArgumentCache:
    """The cache of all sessions of a worker; the least recently used entries are dropped."""

    def __init__(self, most: int) -> None:
        """`most`: the largest number of entries."""
        self._cached = lru_cache(maxsize=most)(_read)

    def read(self, parse: Callable[[Reader], T], reader: Reader) -> T:
        """Parse the rest of the command, to its end, by `parse`. Raises: what `parse` raises.

        `parse` is a function of a module, whose value depends on the text and its encoding alone, and never changes.
        """
        rest = reader.rest()
        if rest is None:
            value = parse(reader)
            reader.read_end()
            return value
        return self.read_text(parse, rest, reader.utf8)

    def read_text(self, parse: Callable[[Reader], T], text: bytes, utf8: bool = False) -> T:
        """Do the same with the whole text, in which no literal is. `utf8`: see Reader."""
        if len(text) > LONGEST:
            return _read(parse, text, utf8)
        value: T = self._cached(parse, text, utf8)  # a cast() would be a call
        return value

    @property
    def known(self) -> int:
        """The number of entries."""
        return self._cached.cache_info().currsize


def _read(parse: Callable[[Reader], T], text: bytes, utf8: bool) -> T:
    reader = Reader([text], utf8=utf8)
    value = parse(reader)
    reader.read_end()
    return value
