"""The present limits of a session's user, which may have changed since the login."""

from __future__ import annotations

from typing import Final

from mailserver.imap.session import Session

FRESH: Final = 1.0
"""Seconds for which limits are used without another look, as long as for a users file."""


async def update_quota(session: Session) -> None:
    """Give the account the present limits of its user, before a command that adds mail or mailboxes."""
    account, services = session.account, session.services
    assert account is not None
    now = session.channel.now()
    if account.quota_as_of is None or not 0 <= now - account.quota_as_of < FRESH:
        account.quota_as_of = now
        account.quota = await services.quotas.of_name(session.user, services.authenticator, account.quota)
