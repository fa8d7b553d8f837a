"""Mail to postmaster: every domain accepts it, whether there is a user of that name or not (RFC 5321 4.5.1).

A user postmaster@domain gets it. Else the user of [mail] postmaster gets it. Where that key is not set, or there is no such
user, it is kept in an account named postmaster@domain, which belongs to no user: nothing is lost, and the administrator finds
the mail there after adding that user or setting the key.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from mailserver.auth.interfaces import Authenticator, User
from mailserver.errors import AuthUnavailable
from mailserver.smtp.address import Address

NAME: Final = "postmaster"
"""In any case (RFC 5321 4.5.1)."""


@frozen
class Postmaster:
    """The configuration of postmaster."""

    user: str = ""
    """The user for that mail where a domain has no such user; empty if none is configured."""
    domain: str = ""
    """The domain of a recipient <postmaster> without one."""
    keeps: bool = True
    """Can an account without a user be stored? It cannot where [mail] location has {home}."""


UNNAMED: Final = Postmaster()


async def find_postmaster(authenticator: Authenticator, address: Address, postmaster: Postmaster) -> User | None:
    """The user for mail to an address of no user; None unless it is a postmaster's. Raises: AuthUnavailable."""
    if address.local.lower() != NAME or (address.domain and not authenticator.is_local_domain(address.domain)):
        return None
    domain = address.domain or postmaster.domain
    for name in filter(None, (f"{NAME}@{domain}" if domain else "", postmaster.user)):
        user = await authenticator.find(name)
        if user is not None:
            return user
    if not postmaster.keeps:
        # A temporary failure, not a permanent one: the key may be set meanwhile.
        raise AuthUnavailable
    return User(f"{NAME}@{domain.lower()}") if domain else None
