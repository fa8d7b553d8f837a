"""The users that have changed, as a back end reports them: whose sessions must end, and which of them."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

from mailserver.auth.limits import Limits


@frozen
class SessionsOf:
    """Some of the sessions of a user, which must end."""

    user: str
    """Its name; "@example.test" for all users of a domain."""
    credential: str | None = None
    """Only those that were let in by this app password; empty: by the main password or a certificate."""
    limits: Limits | None = None
    """Only those that these limits would not let in."""
    delegate: str = ""
    """Only those that this account has as the user, by its own password; empty: those of the user's passwords."""


ChangedUsers: TypeAlias = frozenset[str | SessionsOf]
"""Names of users, whose sessions all must end, and parts of the sessions of others."""
