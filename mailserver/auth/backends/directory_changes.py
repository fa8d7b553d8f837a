"""The sessions that must end because of changes of a directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from mailserver.auth.interfaces import ChangedUsers, Limits, SessionsOf
from mailserver.directory import address_changes, changing, credentials, delegates, reading
from mailserver.directory.database import Database
from mailserver.directory.model import Account, AccountLimits, Change


def concerned(database: Database, since: int) -> ChangedUsers | None:
    """The users that changes after `since` concern; None if those are no longer recorded."""
    oldest = reading.oldest_change(database)
    if oldest is None or oldest > since + 1:
        return None
    return frozenset(each for change in reading.changes(database, since) for each in _ended_by(database, change))


def _ended_by(database: Database, change: Change) -> Iterator[str | SessionsOf]:
    """The sessions that must end."""
    facts = change.facts
    match change.what:
        case changing.ADDED | changing.ENABLED | credentials.ADDED:
            pass
        case changing.LIMITS if not _narrows(facts):
            pass
        case changing.LIMITS | changing.MAIN_PROTOCOLS:
            account = reading.find_login(database, change.account)
            if account is not None:
                yield SessionsOf(change.account, limits=_restrictions(account))
        case delegates.ADDED | delegates.CHANGED:
            # Its end is looked at as any.
            pass
        case delegates.REMOVED:
            yield from sessions_over(change.account, str(facts.get("over")))
        case changing.PASSWORD:
            yield SessionsOf(change.account, credential="")
        case credentials.REVOKED:
            yield SessionsOf(change.account, credential=str(facts.get("credential")))
        case address_changes.DOMAIN_CHANGED if "limits" in facts.get("changed", {}):
            limits = AccountLimits.parse(facts["changed"]["limits"][1])
            yield SessionsOf(f"@{facts.get('domain')}", limits=_limits(limits))
        case _ if change.account:
            yield change.account


def sessions_over(account: str, over: str) -> Iterator[SessionsOf]:
    """The sessions that a delegate has as others: `over` is an account or a domain."""
    yield SessionsOf(over, delegate=account)
    yield SessionsOf(f"@{over}", delegate=account)


def _narrows(facts: Mapping[str, Any]) -> bool:
    """Does a change of limits concern logins?"""
    before, after = facts.get("before", {}), facts.get("after", {})
    return any(before.get(name) != after.get(name) for name in ("networks", "protocols"))


def _restrictions(account: Account) -> Limits:
    """Where it may log in from and by, as far as its own limits go."""
    return attrs.evolve(_limits(account.limits), password_protocols=account.password.protocols)


def _limits(limits: AccountLimits) -> Limits:
    protocols = None if limits.protocols is None else frozenset(limits.protocols)
    return Limits(limits.networks, protocols=protocols)
