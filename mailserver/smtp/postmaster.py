"""Mail to postmaster: it is taken in every domain, whether there is a user of that name or not (RFC 5321 4.5.1).

A user postmaster@domain keeps its own mail. Else it goes to the user of [mail] postmaster. Where that is not set, or is
nobody, it is kept in an account named postmaster@domain, which belongs to no user: nothing is lost, and the mail is there
once somebody adds that user or sets the key.
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
    """What the configuration says of postmaster."""

    user: str = ""
    """The user who gets the mail where a domain has no such user; empty: nobody is named."""
    domain: str = ""
    """The domain of a recipient <postmaster> without one."""
    keeps: bool = True
    """Has an account that is no user's a place? It has none where [mail] location asks for {home}."""


UNNAMED: Final = Postmaster()


async def find_postmaster(authenticator: Authenticator, address: Address, postmaster: Postmaster) -> User | None:
    """The user who gets the mail for an address that is no user's; None if it is none of postmaster's. Raises: AuthUnavailable."""
    if address.local.lower() != NAME or (address.domain and not authenticator.is_local_domain(address.domain)):
        return None
    domain = address.domain or postmaster.domain
    for name in filter(None, (f"{NAME}@{domain}" if domain else "", postmaster.user)):
        user = await authenticator.find(name)
        if user is not None:
            return user
    if not postmaster.keeps:
        # To be tried again, and not refused for good: the key may be set meanwhile.
        raise AuthUnavailable
    return User(f"{NAME}@{domain.lower()}") if domain else None
