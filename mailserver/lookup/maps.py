"""The maps: what is looked up for a key, and the data of the answer.

`alias` answers for the whole way of an address at once, the ends alone, so that the transfer agent needs no other alias map.
A user is answered by itself: agents that ask for the domain's catch-all next would otherwise take the user for unknown.
The catch-all is in the answer for an address that nothing else takes; so `@domain`, and a name without a domain, are not found.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import field, frozen

from mailserver.auth.interfaces import Authenticator, Resolution, User
from mailserver.auth.schemes.mail_address import unquoted
from mailserver.config.model import Limits
from mailserver.errors import NoSuchUser, TooManyEnds
from mailserver.idn import ascii_name
from mailserver.lookup.wire import MAX_REPLY

_MAX_DATA: Final = MAX_REPLY - len("OK ")
_SHOWN_USERS: Final = 10
_DOT_STRING: Final = re.compile(r'[^\s"\\(),.:;<>@\[\]]+(?:\.[^\s"\\(),.:;<>@\[\]]+)*')
"""A local part that needs no quotes (RFC 5321 4.1.2, RFC 6531 3.3)."""
_SEPARATORS: Final = re.compile(r"[\s,]")
"""Characters that separate logins in a list."""

FindRecipients = Callable[[str, str], Awaitable[Resolution]]
"""Where mail to a local part (without quotes) and domain goes, as LMTP finds it.

Raises: NoSuchUser, AddressLoop, TooManyEnds, and another MailError where it cannot be determined now.
"""


@frozen
class Services:
    """The objects and settings that these sessions share."""

    authenticator: Authenticator
    find_recipients: FindRecipients
    detail_separator: str
    """Of details, in domains that have none of their own."""
    default_domain: str = ""
    """The domain of users whose names have none."""
    limits: Limits = field(factory=Limits)


LookUp = Callable[[Services, str], Awaitable[str | None]]
"""Looks a key up: its data, or None. Raises: MailError."""


async def domain(services: Services, key: str) -> str | None:
    """For virtual_mailbox_domains: the domain itself, if its mail is kept here."""
    return key if await services.authenticator.serves_domain(_domain_in_ascii(key)) else None


async def mailbox(services: Services, key: str) -> str | None:
    """For virtual_mailbox_maps: the users that get the mail of an address by LMTP, the first of them."""
    address = _split(key)
    if address is None:
        return None
    try:
        found = await services.find_recipients(*address)
    except NoSuchUser:
        return None
    if found.elsewhere:
        # LMTP refuses it: only the map of aliases leads elsewhere.
        return None
    return ", ".join(user.name for user, _detail in found.local[:_SHOWN_USERS])


async def alias(services: Services, key: str) -> str | None:
    """For virtual_alias_maps: the ends of an address in a domain here, with the detail that each of them has."""
    address = _split(key)
    if address is None or not await services.authenticator.serves_domain(address[1]):
        return None
    try:
        found = await services.find_recipients(*address)
    except NoSuchUser:
        return None
    ends = [await _address_of(services, user, detail) for user, detail in found.local]
    data = ", ".join([*filter(None, ends), *map(_written, found.elsewhere)])
    if None not in ends and len(data.encode("utf-8", "replace")) <= _MAX_DATA:
        return data
    if found.elsewhere:
        raise TooManyEnds
    # LMTP finds the users of this address by itself.
    return key


async def sender(services: Services, key: str) -> str | None:
    """For smtpd_sender_login_maps: the logins of the users that may send as an address."""
    address = _split(key)
    if address is None:
        return None
    names = sorted(await services.authenticator.senders_of("@".join(address)))
    data = ",".join(name for name in names if not _SEPARATORS.search(name))
    if len(data.encode("utf-8", "replace")) > _MAX_DATA:
        raise TooManyEnds
    return data or None


MAPS: Final[dict[str, LookUp]] = {"domain": domain, "mailbox": mailbox, "alias": alias, "sender": sender}
"""By the name in a request."""


def _split(key: str) -> tuple[str, str] | None:
    """Local part, without quotes, and domain of an address; None if it lacks one of them."""
    local, _at, name = key.rpartition("@")
    if not local or not name:
        return None
    return unquoted(local), _domain_in_ascii(name)


def _domain_in_ascii(name: str) -> str:
    return name.lower() if name.isascii() else ascii_name(name) or name.lower()


async def _address_of(services: Services, user: User, detail: str) -> str | None:
    """The address of a user with a detail, which LMTP resolves to them; None if it has none."""
    local, _at, name = user.name.rpartition("@")
    if not local:
        local, name = user.name, services.default_domain
    if not name:
        return None
    if detail:
        separator = await services.authenticator.separator_of(name, services.detail_separator)
        if separator:
            local += separator + detail
    return _written(f"{local}@{name}")


def _written(address: str) -> str:
    """An address as it stands in a header field, with quotes where it needs them (RFC 5322 3.4.1)."""
    local, at, name = address.rpartition("@")
    if not at or _DOT_STRING.fullmatch(local):
        return address
    escaped = re.sub(r'(["\\])', r"\\\1", local)
    return f'"{escaped}"@{name}'
