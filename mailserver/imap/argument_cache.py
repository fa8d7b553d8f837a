"""The meaning of commands that clients send again and again, parsed once.

What follows the messages in a FETCH, STORE or SEARCH hardly varies: mail programs ask with the same words for years.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Final, TypeVar, cast

from mailserver.imap.wire.reader import Reader

T = TypeVar("T", bound=Hashable)

LONGEST: Final = 1024
"""Octets of a text that is remembered."""


class ArgumentCache:
    """Of all sessions of a worker; the least recently used are forgotten."""

    def __init__(self, most: int) -> None:
        """`most`: how many are remembered."""
        self._cached = lru_cache(maxsize=most)(_read)

    def read(self, parse: Callable[[Reader], T], reader: Reader) -> T:
        """What `parse` makes of the rest of the command, which it must read to its end. Raises: what `parse` raises.

        `parse` is a function of a module, whose value depends on the text alone and never changes.
        """
        rest = reader.rest()
        if rest is None:
            value = parse(reader)
            reader.read_end()
            return value
        if len(rest) > LONGEST:
            return _read(parse, rest)
        return cast("T", self._cached(parse, rest))

    @property
    def known(self) -> int:
        """How many are remembered now."""
        return self._cached.cache_info().currsize


def _read(parse: Callable[[Reader], T], text: bytes) -> T:
    reader = Reader([text])
    value = parse(reader)
    reader.read_end()
    return value
