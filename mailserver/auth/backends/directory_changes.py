"""The sessions that must end because of changes of a directory.

What a change allows is read from the directory as it is now, not from the row: a later change may have allowed more, or less.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

import attrs

from mailserver.auth.backends.directory_limits import limits_of
from mailserver.auth.changed_users import ChangedUsers, SessionsOf
from mailserver.auth.limits import Limits
from mailserver.directory import address_changes, addresses, changing, credentials, delegates, reading
from mailserver.directory.database import Database
from mailserver.directory.model import AccountLimits, AddressKind, Change, DirectoryUnavailable
from mailserver.types import Quota

_log = logging.getLogger(__name__)

_OF_ADDRESSES: Final = ("added", "replaced", "extended", "reduced", "changed", "enabled", "disabled", "removed")
_HARMLESS: Final = frozenset(
    {
        changing.ADDED,
        changing.ENABLED,
        changing.IMPORTED,
        changing.APPLIED,
        changing.FULL_NAME,
        credentials.ADDED,
        # The limits of its own accounts are left, so that they are let in by more.
        address_changes.DOMAIN_REMOVED,
        *(f"{kind.value} {verb}" for kind in AddressKind for verb in _OF_ADDRESSES),
    }
)
"""Changes that end no session."""


def concerned(database: Database, since: int, now: int) -> ChangedUsers | None:
    """The users that changes after `since` concern; None if those are no longer recorded, or a row cannot be read.

    `now`: seconds since 1970. Raises: DirectoryUnavailable.
    """
    oldest = reading.oldest_change(database)
    if oldest is None or oldest > since + 1:
        return None
    ended: set[str | SessionsOf] = set()
    for change in reading.changes(database, since):
        try:
            ended.update(_ended_by(database, change, now))
        except DirectoryUnavailable:
            raise
        except Exception:
            _log.exception(
                "change %d of the directory (%s) cannot be read: all sessions end", change.serial, change.what
            )
            return None
    return frozenset(ended)


def _ended_by(database: Database, change: Change, now: int) -> Iterator[str | SessionsOf]:
    """The sessions that must end. Raises: ValueError for a row whose meaning is not known, DirectoryUnavailable."""
    if not change.is_readable:
        raise ValueError("its facts are no JSON object")
    facts, account = change.facts, change.account
    match change.what:
        case what if what in _HARMLESS:
            pass
        case changing.LIMITS if not _concerns_logins(facts):
            pass
        case changing.LIMITS | changing.MAIN_PROTOCOLS:
            yield from _not_allowed(database, account)
        case delegates.ADDED | delegates.CHANGED:
            over = _text(facts, "over")
            if not delegates.may_act_for(database, account, over, over, now):
                # It has expired, or is gone by now.
                yield from sessions_over(account, over)
        case delegates.REMOVED:
            yield from sessions_over(account, _text(facts, "over"))
        case changing.PASSWORD:
            yield SessionsOf(account, credential="")
        case credentials.REVOKED:
            yield SessionsOf(account, credential=_text(facts, "credential"))
        case address_changes.DOMAIN_ADDED | address_changes.DOMAIN_CHANGED:
            yield from _not_allowed_in(database, _text(facts, "domain"))
        case _ if account:
            yield account
        case _:
            raise ValueError("it is of a kind that this release does not know")


def sessions_over(account: str, over: str) -> Iterator[SessionsOf]:
    """The sessions that a delegate has as others: `over` is an account or a domain."""
    yield SessionsOf(over, delegate=account)
    yield SessionsOf(f"@{over}", delegate=account)


def _concerns_logins(facts: Any) -> bool:
    """Does a change of an account's limits concern logins? Yes, if its facts do not say."""
    before, after = facts.get("before"), facts.get("after")
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return True
    return any(before.get(name) != after.get(name) for name in ("networks", "protocols"))


def _not_allowed(database: Database, name: str) -> Iterator[str | SessionsOf]:
    """The sessions of an account that its limits, or those of its domain, do not allow."""
    try:
        account = reading.find_login_row(database, name)
        if account is None:
            # A later change has renamed or deleted it.
            return
        domain = addresses.find_stored_domain(database, name.rpartition("@")[2])
        limits = attrs.evolve(limits_of(account, domain), quota=Quota())
    except ValueError:
        # Nobody can log in by a row that cannot be used.
        yield name
        return
    yield SessionsOf(name, limits=limits)


def _not_allowed_in(database: Database, name: str) -> Iterator[SessionsOf]:
    """The sessions of a domain's accounts that its limits do not allow."""
    domain = addresses.find_stored_domain(database, name)
    if domain is None:
        return
    try:
        limits = AccountLimits.parse(domain.limits)
    except ValueError:
        yield SessionsOf(f"@{name}")
        return
    if limits.networks is None and limits.protocols is None:
        return
    protocols = None if limits.protocols is None else frozenset(limits.protocols)
    yield SessionsOf(f"@{name}", limits=Limits(limits.networks, protocols=protocols))


def _text(facts: Any, name: str) -> str:
    """A fact that is a text. Raises: ValueError."""
    value = facts.get(name)
    if not isinstance(value, str):
        raise ValueError(f"its facts have no {name}")  # noqa: TRY004 - a fault of the row, as any other
    return value
