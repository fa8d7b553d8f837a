"""The schedule of ACME orders and of requests for renewal windows. Pure: no clock, no network, no file.

A certificate is renewed at a moment in the window that the authority suggests (RFC 9773), or without one after two thirds
of its life. A failed order is repeated after five minutes, and after twice as long each time, up to half a day, or as late
as the authority says. Each host has its own count, so a failing host delays no other. Among the due hosts those with the
fewest failures come first; then those whose certificate clients refuse or soon will; then those of domains with the
fewest failed and running orders.
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
"""Maximum seconds that the authority may have us wait; public authorities have limits of a week."""
SOONEST_RENEWAL: Final = 24 * 3600
"""Minimum seconds between a certificate and the next, unless a tenth of its life is less."""
SOONEST_AGAIN: Final = 60
LATEST_AGAIN: Final = 24 * 3600
"""Bounds in seconds of the authority's interval between two requests for a window (RFC 9773 4.3.2)."""
FAILED_AGAIN: Final = 6 * 3600
"""Interval in seconds without the authority's word (RFC 9773 4.3.3)."""
PASSING_AGAIN: Final = 300
"""Interval after a temporary failure (no answer, a status of 500), doubled after each further one."""
PASSING_TRIES: Final = 4
"""Number of such intervals; then FAILED_AGAIN applies."""


@frozen
class Attempts:
    """The attempts to get a host's certificate since the last success. Times are Unix times."""

    host: str
    failures: int = 0
    tried: int = 0
    until: int = 0
    """Earliest time of the next attempt."""
    error: str = ""
    """Text of the last failure."""

    def failed(self, error: str, now: int, retry_after: int = 0) -> Attempts:
        """Add a failure; `retry_after` is the authority's, in seconds (RFC 8555 6.6)."""
        failures = self.failures + 1
        wait = min(LONGEST_WAIT, FIRST_WAIT << min(failures - 1, 16))
        wait = max(wait, min(LONGEST_ASKED, retry_after))
        return Attempts(self.host, failures, now, now + wait, printable(error))

    def succeeded(self, now: int) -> Attempts:
        """Clear the failures. AFTER_SUCCESS delays the next order if the authority's certificates are old at once."""
        return Attempts(self.host, tried=now, until=now + AFTER_SUCCESS)


@frozen
class CurrentCertificate:
    """The certificate that a host is served with now."""

    host: str
    not_before: int
    not_after: int
    self_signed: bool
    fingerprint: str = ""
    of_authority: bytes = b""
    """Its chain, PEM, if the authority issued it."""
    domain: str = ""
    """The [[domain]] of the host."""

    def is_wanting(self, now: int) -> bool:
        """Do clients refuse it, or will they soon?"""
        return self.self_signed or self.not_after - now < (self.not_after - self.not_before) // 10


@frozen
class Window:
    """The time in which the authority suggests a renewal (RFC 9773 4.2). Times are Unix times."""

    host: str
    fingerprint: str
    """Fingerprint of the certificate."""
    moment: int
    """The moment chosen in the window; 0 without a window."""
    start: int
    end: int
    again: int
    """When to ask again."""
    explanation: str = ""
    """URL of the authority's explanation, or ""."""
    failures: int = 0
    """Temporary failures in a row. A restart forgets them."""


def choose_moment(start: int, end: int, before: Window | None, place: float) -> int:
    """Choose a moment in a window; keep the previous one if the window is the same. `place` is random, from 0 to 1."""
    if before is not None and (before.start, before.end) == (start, end):
        return before.moment
    return start + int((end - start) * place)


def ask_again(now: int, retry_after: int) -> int:
    """Return when to ask for a window again; `retry_after` in seconds, 0 for none (RFC 9773 4.3)."""
    return now + (min(max(retry_after, SOONEST_AGAIN), LATEST_AGAIN) if retry_after else FAILED_AGAIN)


def ask_after_failure(now: int, retry_after: int, failures: int) -> int:
    """The same after a failure; `failures` counts temporary ones in a row (RFC 9773 4.3.3)."""
    if retry_after or not 0 < failures <= PASSING_TRIES:
        return ask_again(now, retry_after)
    return now + (PASSING_AGAIN << (failures - 1))


def should_ask_window(held: CurrentCertificate, window: Window | None, now: int) -> bool:
    """Is it time to ask for a certificate's window? Not after the certificate has ended (RFC 9773 4.3)."""
    if not held.of_authority or held.not_after <= now:
        return False
        # A clock that has jumped back must not suppress the request.
    return window is None or window.fingerprint != held.fingerprint or not now < window.again <= now + LATEST_AGAIN


@frozen
class Due:
    """When a host's certificate is due."""

    time: int
    failures: int
    host: str


def due(held: CurrentCertificate, attempts: Attempts, now: int, window: Window | None = None) -> Due:
    """Return when one host's certificate is due."""
    renewal = 0 if held.self_signed else _renewal(held, window)
    until = attempts.until
    if attempts.tried > now:
        # The clock has jumped back: times that it gave before do not count.
        until = min(until, now + LONGEST_WAIT)
    return Due(max(renewal, until), attempts.failures, held.host)


def _renewal(held: CurrentCertificate, window: Window | None) -> int:
    life = held.not_after - held.not_before
    if window is None or not window.moment or window.fingerprint != held.fingerprint:
        return held.not_before + life * 2 // 3
    # Leave time for failed attempts whatever the authority suggests, and never replace a certificate at once.
    soonest, latest = held.not_before + min(SOONEST_RENEWAL, life // 10), held.not_before + life * 9 // 10
    return max(soonest, min(window.moment, latest))


def plan(
    hosts: Iterable[CurrentCertificate],
    attempts: Mapping[str, Attempts],
    now: int,
    windows: Mapping[str, Window] | None = None,
    under_way: Iterable[str] = (),
) -> list[Due]:
    """Order all hosts, due ones first; `under_way` holds the domain of each running order."""
    known = windows or {}
    found = [
        (each, due(each, attempts.get(each.host, Attempts(each.host)), now, known.get(each.host))) for each in hosts
    ]
    # A domain whose challenges fail or hang must not come first with all its hosts.
    burdens = Counter(under_way)
    burdens.update(held.domain for held, each in found if each.failures)

    def place(pair: tuple[CurrentCertificate, Due]) -> tuple[int, ...]:
        held, each = pair
        if each.time > now:
            return 1, each.time
        return 0, each.failures, not held.is_wanting(now), burdens[held.domain], each.time

    return [each for _held, each in sorted(found, key=place)]
