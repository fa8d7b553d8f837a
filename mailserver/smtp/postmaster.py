"""Mail to postmaster and abuse: every domain accepts it, whether there is such a user or not (RFC 5321 4.5.1, RFC 2142 4).

A user or alias of that name gets it. Mail to abuse then goes where that to postmaster does. Else the user of [mail] postmaster gets it. Where that key is not set, or there is no such
user, it is kept in an account named postmaster@domain, which belongs to no user: nothing is lost, and the administrator finds
the mail there after adding that user or setting the key.
"""

from __future__ import annotations

import contextlib
from typing import Final

import attrs
from attrs import frozen

from mailserver.auth.interfaces import Authenticator, Resolution, User
from mailserver.errors import AuthUnavailable, NoSuchUser
from mailserver.smtp.address import Address

NAME: Final = "postmaster"
"""In any case (RFC 5321 4.5.1)."""
ABUSE: Final = "abuse"
"""In any case (RFC 2142 4)."""


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


async def find_postmaster(
    authenticator: Authenticator, address: Address, separator: str, postmaster: Postmaster
) -> Resolution | None:
    """Where mail to an address of no user goes; None unless it is of postmaster or abuse.

    Raises: AddressLoop, TooManyEnds, AuthUnavailable.
    """
    local, _, detail = address.local.partition(separator) if separator else (address.local, "", "")
    if local.lower() != NAME and not (local.lower() == ABUSE and address.domain):
        return None
    if address.domain and not await authenticator.serves_domain(address.domain):
        return None
    domain = address.domain or postmaster.domain
    for name in filter(None, (f"{NAME}@{domain}" if domain else "", postmaster.user)):
        with contextlib.suppress(NoSuchUser):
            found = await authenticator.resolve(name, separator)
            return attrs.evolve(found, local=tuple((user, own or detail) for user, own in found.local))
    if not postmaster.keeps:
        # A temporary failure, not a permanent one: the key may be set meanwhile.
        raise AuthUnavailable
    return Resolution(((User(f"{NAME}@{domain.lower()}"), detail),)) if domain else None
