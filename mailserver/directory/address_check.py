"""Faults of addresses: targets that do not exist, loops, what is disabled (no I/O). The work is linear in the targets."""

from __future__ import annotations

import enum
from collections.abc import Container, Iterator, Mapping
from typing import Final

from attrs import field, frozen

from mailserver.directory.model import StoredAddress, StoredDomain

MAX_DEPTH: Final = 10
"""Addresses on the way to one end (as in `auth.resolution`)."""
MAX_ENDS: Final = 1000
"""Ends of one address (the same)."""


class Sort(enum.Enum):
    """The sort of a finding."""

    GONE = "gone"
    """A target here does not exist."""
    ELSEWHERE = "elsewhere"
    """A target is elsewhere, and mail cannot leave."""
    LOOP = "loop"
    """Mail would come back to the address, or pass through too many."""
    ENDS = "ends"
    """More targets than a message may have."""
    EMPTY = "empty"
    """No target is left."""
    DISABLED = "disabled"
    """The address, its domain, or a target is disabled."""


@frozen
class Finding:
    """What is wrong with one address."""

    address: str
    sort: Sort
    text: str
    """With the address: a sentence."""


@frozen
class Names:
    """All that has a name."""

    users: Container[str]
    """Names of the accounts of all back ends."""
    addresses: Mapping[str, StoredAddress]
    domains: Mapping[str, StoredDomain]
    """Those of the directory."""
    configured: Container[str] = ()
    """Those of the configuration."""
    separator: str = "+"
    """Of details, in domains of the configuration."""
    mail_leaves: bool = True
    """Is there a next hop for mail to addresses elsewhere?"""
    _alias_of: dict[str, str] = field(init=False)

    @_alias_of.default
    def _make_alias_of(self) -> dict[str, str]:
        return {each.name: each.alias_of for each in self.domains.values() if each.alias_of is not None}

    def is_local(self, name: str) -> bool:
        """Is it an address of a domain here, or a name without a domain?"""
        domain = name.rpartition("@")[2] if "@" in name else ""
        return not domain or domain in self.domains or domain in self.configured

    def followed(self, name: str) -> str | None:
        """The account or address that takes mail to a local name; None if there is none."""
        if name in self.users or name in self.addresses:
            return name
        local, at, domain = name.rpartition("@")
        if not at:
            return None
        domain = self._alias_of.get(domain, domain)
        stored = self.domains.get(domain)
        separator = self.separator if stored is None else stored.detail
        base = local.partition(separator)[0] if separator else local
        for each in (f"{local}@{domain}", f"{base}@{domain}", f"@{domain}"):
            if each in self.users or each in self.addresses:
                return each
        return None


def find_faults(names: Names) -> Iterator[Finding]:
    """The faults of all addresses, in their order; loops last."""
    for address in names.addresses.values():
        yield from _of_one(names, address)
    yield from _loops(names)


def _of_one(names: Names, address: StoredAddress) -> Iterator[Finding]:
    name = address.name
    if not address.enabled:
        yield Finding(name, Sort.DISABLED, f"{name} is disabled")
    if not address.targets:
        yield Finding(name, Sort.EMPTY, f"{name} has no target left: mail to it is refused")
    if len(address.targets) > MAX_ENDS:
        yield Finding(
            name,
            Sort.ENDS,
            f"{name} has {len(address.targets)} targets, and mail to more than {MAX_ENDS} mailboxes is refused",
        )
    for target in address.targets:
        if not names.is_local(target.name):
            if not names.mail_leaves:
                yield Finding(
                    name,
                    Sort.ELSEWHERE,
                    f"{name}: {target.name} is elsewhere, and mail cannot leave: [submission.relay] names no next hop",
                )
            continue
        meant = names.followed(target.name)
        if meant is None:
            yield Finding(name, Sort.GONE, f"{name}: there is no user or address {target.name}")
        elif meant in names.addresses and not names.addresses[meant].enabled:
            yield Finding(name, Sort.DISABLED, f"{name} leads to {meant}, which is disabled")


def _loops(names: Names) -> Iterator[Finding]:
    """One finding for each loop, at each address of it; and for addresses with too many others on the way to an end."""
    depths: dict[str, int] = {}
    """Of addresses that were followed to the end."""
    for start in names.addresses:
        if start in depths:
            continue
        way: dict[str, Iterator[str]] = {start: _next(names, start)}
        deepest = {start: 1}
        while way:
            name = next(reversed(way))
            following = next(way[name], None)
            if following is None:
                way.popitem()
                depths[name] = deepest.pop(name)
                if way:
                    before = next(reversed(way))
                    deepest[before] = max(deepest[before], depths[name] + 1)
            elif following in way:
                around = list(way)
                around = around[around.index(following) :]
                for number, each in enumerate(around):
                    words = " to ".join([*around[number:], *around[: number + 1]])
                    yield Finding(each, Sort.LOOP, f"mail to {each} would go round in a loop: {words}")
            elif following in depths:
                deepest[name] = max(deepest[name], depths[following] + 1)
            else:
                way[following] = _next(names, following)
                deepest[following] = 1
    for name, depth in depths.items():
        if depth > MAX_DEPTH + 1:
            yield Finding(
                name, Sort.LOOP, f"mail to {name} would pass through {depth} addresses, and the most are {MAX_DEPTH}"
            )


def _next(names: Names, name: str) -> Iterator[str]:
    """The addresses that an address leads to."""
    for target in names.addresses[name].targets:
        if not target.is_account and names.is_local(target.name):
            meant = names.followed(target.name)
            if meant is not None and meant in names.addresses:
                yield meant
