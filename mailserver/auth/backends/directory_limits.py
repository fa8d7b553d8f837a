"""The limits of an account of a directory: its own, and where it has none, those of its domain."""

from __future__ import annotations

from functools import lru_cache

from mailserver.auth.limits import Limits
from mailserver.directory.model import AccountLimits, LoginRow, StoredDomain
from mailserver.types import Quota


def limits_of(account: LoginRow, domain: StoredDomain | None) -> Limits:
    """The limits that hold for logins and mail. Raises: ValueError for a row that cannot be used."""
    return _limits(account.limits, "{}" if domain is None else domain.limits, account.password_protocols)


# Most accounts of a directory have the same.
@lru_cache(maxsize=512)
def _limits(own_text: str, domain_text: str, password_protocols: str | None) -> Limits:
    own, of_domain = AccountLimits.parse(own_text), AccountLimits.parse(domain_text)
    protocols = of_domain.protocols if own.protocols is None else own.protocols
    return Limits(
        of_domain.networks if own.networks is None else own.networks,
        Quota(own.storage, own.messages, own.mailboxes),
        None if protocols is None else frozenset(protocols),
        None if password_protocols is None else frozenset(filter(None, password_protocols.split(","))),
    )
