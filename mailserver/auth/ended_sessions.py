"""The sessions that changes of users end."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen

from mailserver.auth.changed_users import ChangedUsers, SessionsOf


@frozen
class OpenSession:
    """What decides whether a change ends a session."""

    user: str
    protocol: str
    """As in `LoginContext`."""
    peer: IPv4Address | IPv6Address | None
    credential: str = ""
    delegate: str = ""

    @property
    def owner(self) -> str:
        """The account whose password has let it in."""
        return self.delegate or self.user


class EndedSessions:
    """The sessions that these changes end: a question costs the same, however many users have changed."""

    def __init__(self, changed: ChangedUsers | None) -> None:
        """`changed`: None for the sessions of all users."""
        self._changed = changed
        self._parts: dict[str, list[SessionsOf]] = {}
        for each in changed or ():
            if isinstance(each, SessionsOf):
                self._parts.setdefault(each.user, []).append(each)

    def includes(self, session: OpenSession) -> bool:
        """Must it end?"""
        if self._changed is None or session.user in self._changed or session.owner in self._changed:
            return True
        if not self._parts:
            return False
        names = {session.user, session.owner}
        return any(_concerns(part, session) for name in names for part in self._parts_of(name))

    def _parts_of(self, name: str) -> Iterator[SessionsOf]:
        yield from self._parts.get(name, ())
        yield from self._parts.get(f"@{name.rpartition('@')[2]}", ())


def _concerns(part: SessionsOf, session: OpenSession) -> bool:
    """Is it one of these sessions? Passwords and limits are those of the account that has logged in."""
    if part.delegate:
        return part.delegate == session.delegate and _is_in(session.user, part.user)
    if not _is_in(session.owner, part.user):
        return False
    if part.credential is not None and session.credential != part.credential:
        return False
    limits = part.limits
    if limits is None:
        return True
    by_password = not session.credential
    return not (limits.allows(session.peer) and limits.allow_protocol(session.protocol, by_password=by_password))


def _is_in(name: str, user: str) -> bool:
    """Is it that user, or one of that "@domain"?"""
    return name == user or (user.startswith("@") and name.endswith(user))
