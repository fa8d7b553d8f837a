"""The hosts that take a domain's mail, and their addresses in the order to try them (RFC 5321 5.1, RFC 7505)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, zip_longest
from typing import ClassVar, Final

from attrs import frozen

from mailserver.dns.query import DNSFailure, Kind, MailExchange, Question
from mailserver.dns.resolver import Resolver
from mailserver.errors import MailError

MOST_ADDRESSES: Final = 5
"""Addresses that are tried in one attempt."""
MOST_HOSTS: Final = 10
"""Hosts of a domain that are looked up in one attempt."""

Address = IPv4Address | IPv6Address

_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
"""A host's name (RFC 1123 2.1); `_` is no part of one, and occurs."""


class NoMailDomain(MailError):
    """The domain does not exist (RFC 3463 X.1.2)."""

    smtp_reply: ClassVar[tuple[int, str]] = (550, "5.1.2")
    text = "the domain does not exist"


class NullMX(MailError):
    """The domain takes no mail and says so (RFC 7505 4.2)."""

    smtp_reply: ClassVar[tuple[int, str]] = (556, "5.1.10")
    text = "the domain takes no mail"


class NoRoute(MailError):
    """No host of the domain has an address that mail may be sent to (RFC 3463 X.4.4)."""

    smtp_reply: ClassVar[tuple[int, str]] = (550, "5.4.4")
    text = "no mail host of the domain has a usable address"


@frozen
class MailHost:
    """A host and one of its addresses."""

    host: str
    """The name that its certificate is verified for; empty for an address literal."""
    address: Address
    preference: int = 0


def address_literal(domain: str) -> Address | None:
    """The address of `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3), None for a name. Raises: NoMailDomain."""
    if not domain.startswith("["):
        return None
    text = domain.removeprefix("[").removesuffix("]")
    version = 4
    if text[:5].lower() == "ipv6:":
        text, version = text[5:], 6
    try:
        address = ip_address(text)
    except ValueError as error:
        raise NoMailDomain("the address literal is not one") from error
    if address.version != version or "%" in text:
        raise NoMailDomain("the address literal is not one")
    return address


async def find_mail_hosts(
    resolver: Resolver,
    domain: str,
    *,
    ipv6: bool = True,
    is_refused: Callable[[Address], bool] = lambda _address: False,
    shuffle: Callable[[list[MailExchange]], None] = random.shuffle,
) -> list[MailHost]:
    """Find at most MOST_ADDRESSES places to deliver the domain's mail to, the best first.

    `domain` is a name in ASCII or an address literal. `is_refused` says which addresses are never dialled. Hosts of one
    preference come in random order, so that load is spread, and the addresses of a host in turns of both versions.

    Raises: NoMailDomain, NullMX, NoRoute, BadName: for good; DNSFailure: for now.
    """
    literal = address_literal(domain)
    if literal is not None:
        if is_refused(unmapped(literal)):
            raise NoRoute
        return [MailHost("", literal)]
    exchanges = await _exchanges(resolver, domain, shuffle)
    found: list[MailHost] = []
    failure: DNSFailure | None = None
    for exchange in exchanges[:MOST_HOSTS]:
        try:
            addresses = await _addresses(resolver, exchange.host, ipv6=ipv6)
        except DNSFailure as error:
            failure = error
            continue
        found += [
            MailHost(exchange.host, address, exchange.preference)
            for address in addresses
            if not is_refused(unmapped(address))
        ]
        if len(found) >= MOST_ADDRESSES:
            break
    if not found:
        # A host whose address is not known now may have a usable one later.
        raise failure or NoRoute
    return found[:MOST_ADDRESSES]


async def _exchanges(
    resolver: Resolver, domain: str, shuffle: Callable[[list[MailExchange]], None]
) -> Sequence[MailExchange]:
    answer = await resolver.ask(Question(domain, "MX"))
    if not answer.exists:
        raise NoMailDomain
    exchanges = [each for each in answer.records if isinstance(each, MailExchange)]
    if exchanges and not any(each.host for each in exchanges):
        raise NullMX
    if not exchanges:
        return [MailExchange(0, domain)]
    # Where there are MX records, the domain's own addresses are not meant, usable or not (RFC 5321 5.1).
    exchanges = [each for each in exchanges if _HOST.fullmatch(each.host)]
    shuffle(exchanges)
    exchanges.sort(key=lambda each: each.preference)
    hosts: dict[str, MailExchange] = {}
    for each in exchanges:
        hosts.setdefault(each.host, each)
    return list(hosts.values())


async def _addresses(resolver: Resolver, host: str, *, ipv6: bool) -> list[Address]:
    """The addresses of a host, in turns of both versions, IPv6 first. Raises: DNSFailure if neither version is known now."""
    failure: DNSFailure | None = None
    lists: list[list[Address]] = []
    kinds: tuple[Kind, ...] = ("AAAA", "A") if ipv6 else ("A",)
    for kind in kinds:
        try:
            answer = await resolver.ask(Question(host, kind))
        except DNSFailure as error:
            failure = error
            continue
        lists.append([each for each in answer.records if isinstance(each, IPv4Address | IPv6Address)])
    addresses = [each for each in chain.from_iterable(zip_longest(*lists)) if each is not None]
    if not addresses and failure is not None:
        raise failure
    return addresses


def unmapped(address: Address) -> Address:
    """The IPv4 address in a mapped one (RFC 4291 2.5.5.2): it is where the connection would go."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
