"""Times of tries, notices and expiry: pure functions of the time that the caller passes."""

from __future__ import annotations

from mailserver.queue.dsn_rules import wants_delay
from mailserver.queue.model import Envelope, Settings, Target


def expires_at(settings: Settings, envelope: Envelope) -> int:
    """The time of the last try: sooner for the null sender, as nobody waits for it."""
    return envelope.received + (settings.expiry if envelope.sender else settings.bounce_expiry)


def notice_at(settings: Settings, envelope: Envelope, target: Target) -> int | None:
    """The time from which on a delay is reported, None if it never is."""
    if not settings.delay_notice or not wants_delay(envelope, target):
        return None
    return envelope.received + settings.delay_notice


def wait_after(settings: Settings, tries: int) -> int:
    """Seconds to wait after that many failed tries, at least one."""
    return settings.retry[min(max(tries, 1), len(settings.retry)) - 1]


def next_due(settings: Settings, now: int, tries: int, expires: int) -> int | None:
    """The time of the next try after `tries` failed ones; None if the message has expired.

    The last try is at the time of expiry: a long wait does not shorten the time in which the message may arrive.
    """
    if now >= expires:
        return None
    return min(now + wait_after(settings, tries), expires)


def next_contact(settings: Settings, now: int, failures: int) -> int:
    """The time of the next connection to a hop that has failed `failures` times."""
    return now + wait_after(settings, failures)
