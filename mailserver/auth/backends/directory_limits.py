"""The limits of an account of a directory: its own, and where it has none, those of its domain."""

from __future__ import annotations

from mailserver.auth.interfaces import Limits
from mailserver.directory.model import NO_LIMITS, Account, AccountLimits, StoredDomain
from mailserver.types import Quota


def limits_of(account: Account, domain: StoredDomain | None) -> Limits:
    """The limits that hold for logins and mail. Raises: ValueError for a domain's row that cannot be used."""
    own, of_domain = account.limits, NO_LIMITS if domain is None else AccountLimits.parse(domain.limits)
    protocols = of_domain.protocols if own.protocols is None else own.protocols
    return Limits(
        of_domain.networks if own.networks is None else own.networks,
        Quota(own.storage, own.messages, own.mailboxes),
        None if protocols is None else frozenset(protocols),
        account.password.protocols,
    )
