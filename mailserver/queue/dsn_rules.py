"""Who gets a delivery report (RFC 3461 4.1, 5.2; RFC 5321 6.1)."""

from __future__ import annotations

from mailserver.queue.model import Envelope, Target


def wants_failure(envelope: Envelope, target: Target) -> bool:
    """Is a failure reported?"""
    return _may_report(envelope, target) and (not target.notify or "FAILURE" in _events(target))


def wants_delay(envelope: Envelope, target: Target) -> bool:
    """Is a delay reported? Without NOTIFY it is, as Postfix can do (`delay_warning_time`)."""
    return _may_report(envelope, target) and (not target.notify or "DELAY" in _events(target))


def wants_success(envelope: Envelope, target: Target) -> bool:
    """Is a success reported? Only on request."""
    return _may_report(envelope, target) and "SUCCESS" in _events(target)


def is_backscatter(*, forwarded: bool, authenticated: bool) -> bool:
    """Would a report about this recipient be backscatter?

    `forwarded`: an alias here sends the message on, so that its failure was not answered in the sender's session.
    `authenticated`: the sender logged in, or the message passed SPF or DKIM for the sender's domain.
    """
    return forwarded and not authenticated


def _may_report(envelope: Envelope, target: Target) -> bool:
    return bool(envelope.sender) and not target.backscatter and target.notify != "NEVER"


def _events(target: Target) -> list[str]:
    return target.notify.split(",")
