"""When to ask an ACME authority for which certificate: no clock, no network, no file.

A certificate is renewed at a moment in the window that the authority suggests (RFC 9773); where it suggests none, when two
thirds of its life are over. What fails is tried again after five minutes, and after
twice as long each time, up to half a day; or as late as the authority says. Each host has its own count, so that one
that fails delays nobody. Of those that are due, the ones that have failed least come first; of these, those whose clients
have no certificate that they take; of these, those of domains of which least has failed or is under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen

from mailserver.tls.keypair.sanitize import printable

FIRST_WAIT: Final = 300
LONGEST_WAIT: Final = 12 * 3600
AFTER_SUCCESS: Final = 3600
LONGEST_ASKED: Final = 8 * 24 * 3600
"""Seconds that the authority may have us wait; limits of public ones are of a week."""
SOONEST_RENEWAL: Final = 24 * 3600
"""Seconds between a certificate and the next, if that is less than a tenth of its life."""
SOONEST_AGAIN: Final = 60
LATEST_AGAIN: Final = 24 * 3600
"""Seconds between two looks at a window, as far as the authority may say it (RFC 9773 4.3.2)."""
FAILED_AGAIN: Final = 6 * 3600
"""Seconds until it is asked again where it has not said when (RFC 9773 4.3.3)."""
PASSING_AGAIN: Final = 300
"""The same after a failure that may pass (no answer, a status of 500), and twice as long after the next."""
PASSING_TRIES: Final = 4
"""So many of these; then it is FAILED_AGAIN."""


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
        return Attempts(self.host, failures, now, now + wait, printable(error))

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
    fingerprint: str = ""
    of_authority: bytes = b""
    """Its chain, PEM, where it came from the authority."""
    domain: str = ""
    """The [[domain]] of the host."""

    def is_wanting(self, now: int) -> bool:
        """Do clients refuse it, or will they soon?"""
        return self.self_signed or self.not_after - now < (self.not_after - self.not_before) // 10


@frozen
class Window:
    """When the authority would have a certificate renewed (RFC 9773 4.2). Times are Unix times."""

    host: str
    fingerprint: str
    """Of the certificate."""
    chosen: int
    """A moment in the window; 0 where there is none."""
    start: int
    end: int
    again: int
    """When to ask again."""
    explanation: str = ""
    """Address of a page that says why; "" where there is none."""
    failures: int = 0
    """Answers in a row that have failed in a way that may pass. A restart forgets them."""


def chosen(start: int, end: int, before: Window | None, place: float) -> int:
    """A moment in a window; the one of before where the window is the same. `place`: by chance, from 0 to 1."""
    if before is not None and (before.start, before.end) == (start, end):
        return before.chosen
    return start + int((end - start) * place)


def ask_again(now: int, retry_after: int) -> int:
    """When to ask again for a window, by the authority's Retry-After in seconds, 0 for none (RFC 9773 4.3)."""
    return now + (min(max(retry_after, SOONEST_AGAIN), LATEST_AGAIN) if retry_after else FAILED_AGAIN)


def ask_after_failure(now: int, retry_after: int, failures: int) -> int:
    """The same where the answer has failed; `failures`: of those that may pass, in a row (RFC 9773 4.3.3)."""
    if retry_after or not 0 < failures <= PASSING_TRIES:
        return ask_again(now, retry_after)
    return now + (PASSING_AGAIN << (failures - 1))


def asks(held: Held, window: Window | None, now: int) -> bool:
    """Is the authority to be asked for a certificate's window? Not once it has ended (RFC 9773 4.3)."""
    if not held.of_authority or held.not_after <= now:
        return False
    # A clock that has jumped back must not silence it.
    return window is None or window.fingerprint != held.fingerprint or not now < window.again <= now + LATEST_AGAIN


@frozen
class Due:
    """When a host's certificate is to be asked for."""

    time: int
    failures: int
    host: str


def due(held: Held, attempts: Attempts, now: int, window: Window | None = None) -> Due:
    """Of one host."""
    renewal = 0 if held.self_signed else _renewal(held, window)
    until = attempts.until
    if attempts.tried > now:
        # The clock has jumped back: what was decided by it does not count.
        until = min(until, now + LONGEST_WAIT)
    return Due(max(renewal, until), attempts.failures, held.host)


def _renewal(held: Held, window: Window | None) -> int:
    life = held.not_after - held.not_before
    if window is None or not window.chosen or window.fingerprint != held.fingerprint:
        return held.not_before + life * 2 // 3
    # Whatever it suggests: time is left for attempts that fail, and none is replaced as soon as it has come.
    soonest, latest = held.not_before + min(SOONEST_RENEWAL, life // 10), held.not_before + life * 9 // 10
    return max(soonest, min(window.chosen, latest))


def plan(
    hosts: Iterable[Held],
    attempts: Mapping[str, Attempts],
    now: int,
    windows: Mapping[str, Window] | None = None,
    under_way: Iterable[str] = (),
) -> list[Due]:
    """All, what is due first in front; `under_way`: the domain of each order that runs."""
    known = windows or {}
    found = [
        (each, due(each, attempts.get(each.host, Attempts(each.host)), now, known.get(each.host))) for each in hosts
    ]
    # One domain whose proofs fail or hang should not be in front with all of its hosts.
    burdens = Counter(under_way)
    burdens.update(held.domain for held, each in found if each.failures)

    def place(pair: tuple[Held, Due]) -> tuple[int, ...]:
        held, each = pair
        if each.time > now:
            return 1, each.time
        return 0, each.failures, not held.is_wanting(now), burdens[held.domain], each.time

    return [each for _held, each in sorted(found, key=place)]
