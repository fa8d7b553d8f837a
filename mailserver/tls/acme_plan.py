"""When to ask an ACME authority for which certificate: no clock, no network, no file.

A certificate is renewed when two thirds of its life are over. What fails is tried again after five minutes, and after
twice as long each time, up to half a day; or as late as the authority says. Each host has its own count, so that one
that fails delays nobody; of those that are due, the ones that have failed least come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen

FIRST_WAIT: Final = 300
LONGEST_WAIT: Final = 12 * 3600
AFTER_SUCCESS: Final = 3600
LONGEST_ASKED: Final = 8 * 24 * 3600
"""Seconds that the authority may have us wait; limits of public ones are of a week."""
LONGEST_ERROR: Final = 500


@frozen
class Attempts:
    """What came of asking for a host's certificate, since the last success. Times are Unix times."""

    host: str
    failures: int = 0
    tried: int = 0
    until: int = 0
    """No attempt before."""
    error: str = ""
    """Of the last failure."""

    def failed(self, error: str, now: int, retry_after: int = 0) -> Attempts:
        """With one more failure; `retry_after` seconds are the authority's word (RFC 8555 6.6)."""
        failures = self.failures + 1
        wait = min(LONGEST_WAIT, FIRST_WAIT << min(failures - 1, 16))
        wait = max(wait, min(LONGEST_ASKED, retry_after))
        # Part of it is a stranger's: nothing of that may move a terminal's cursor.
        words = "".join(character if character.isprintable() else " " for character in error[:LONGEST_ERROR])
        return Attempts(self.host, failures, now, now + wait, words)

    def succeeded(self, now: int) -> Attempts:
        """Nothing is left of the failures. An authority whose certificates are old at once is not asked at once again."""
        return Attempts(self.host, tried=now, until=now + AFTER_SUCCESS)


@frozen
class Held:
    """The certificate that is served for a host."""

    host: str
    not_before: int
    not_after: int
    self_signed: bool


@frozen
class Due:
    """When a host's certificate is to be asked for."""

    time: int
    failures: int
    host: str


def due(held: Held, attempts: Attempts, now: int) -> Due:
    """Of one host."""
    renewal = 0 if held.self_signed else held.not_before + (held.not_after - held.not_before) * 2 // 3
    until = attempts.until
    if attempts.tried > now:
        # The clock has jumped back: what was decided by it does not count.
        until = min(until, now + LONGEST_WAIT)
    return Due(max(renewal, until), attempts.failures, held.host)


def plan(hosts: Iterable[Held], attempts: Mapping[str, Attempts], now: int) -> list[Due]:
    """All, what is due first in front: those that have failed least, then those that have waited longest."""
    found = [due(held, attempts.get(held.host, Attempts(held.host)), now) for held in hosts]
    return sorted(found, key=lambda each: (each.time > now, each.failures if each.time <= now else 0, each.time))
