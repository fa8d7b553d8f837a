"""The addresses that the back ends know: resolution of a recipient, senders of an address, domains."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mailserver.auth import resolution
from mailserver.auth.interfaces import DomainEntry, Entry, IAddresses, IOwnAddresses, Resolution, User
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.auth.sources import Source
from mailserver.errors import NoSuchUser

T = TypeVar("T")


class Addresses:
    """Implements `resolution.Sources` over the back ends. All calls are made on one thread."""

    def __init__(
        self,
        sources: Sequence[Source],
        find: Callable[[str], Awaitable[User | None]],
        is_local_domain: Callable[[str], bool],
        pause: Callable[[], Awaitable[object]],
        default_domain: str = "",
    ) -> None:
        """`find` returns the user of a name. `pause` gives the reactor a turn. Bare names are of `default_domain`."""
        self._with_addresses = [each for each in sources if IAddresses.providedBy(each.backend)]
        self._with_owners = [each for each in sources if IOwnAddresses.providedBy(each.backend)]
        self._find = find
        self._pause = pause
        self._default_domain = default_domain
        self.is_local_domain = is_local_domain

    async def find_user(self, name: str) -> User | None:
        """See Sources."""
        return await self._find(name)

    async def find_address(self, name: str) -> Entry | None:
        """See Sources. The first back end that knows it answers."""
        local, at, domain = name.rpartition("@")
        names = [name]
        if at and local and domain == self._default_domain:
            names.append(local)
        elif not at and self._default_domain:
            names.append(f"{name}@{self._default_domain}")
        for source in self._with_addresses:
            if not source.serves((name,)):
                continue
            for each in names:
                entry: Entry | None = await _answer(source.backend.find_address(each))
                if entry is not None:
                    return entry
        return None

    async def find_domain(self, name: str) -> DomainEntry | None:
        """See Sources."""
        for each in self._with_addresses:
            serves = each.serves((f"@{name}",))
            domain: DomainEntry | None = await _answer(each.backend.find_domain(name)) if serves else None
            if domain is not None:
                return domain
        return None

    async def resolve(self, address: str, separator: str) -> Resolution:
        """See Authenticator."""
        try:
            name = normalise(address)
        except BadName:
            raise NoSuchUser from None
        return await resolution.resolve(self, name, separator, self._pause, address)

    async def may_send_as(self, user: User, address: str) -> bool:
        """See Authenticator."""
        try:
            name = normalise(address)
        except BadName:
            return False
        if name == user.name or name in user.addresses:
            return True
        return self._whole(user.name) in map(self._whole, await self._senders_of(name))

    def _whole(self, name: str) -> str:
        """The name with its domain: a bare one is of the default domain."""
        return name if "@" in name or not self._default_domain else f"{name}@{self._default_domain}"

    async def senders_of(self, address: str) -> frozenset[str]:
        """See Authenticator."""
        try:
            name = normalise(address)
        except BadName:
            return frozenset()
        senders = set(await self._senders_of(name))
        if await self.serves_domain(name.rpartition("@")[2]):
            own = await self._find(name)
            senders |= set() if own is None else {own.name}
        for source in self._with_owners:
            owners: frozenset[str] = await _answer(source.backend.find_owners(name))
            senders |= {each for each in owners if source.serves((each,))}
        return frozenset(senders)

    async def _senders_of(self, name: str) -> frozenset[str]:
        """The users of an entry, or of its own name. The domain must be one here, and not be disabled."""
        local, at, domain = name.rpartition("@")
        if not at:
            return frozenset()
        known = await self.find_domain(domain)
        if known is not None and known.alias_of is not None:
            name, domain = f"{local}@{known.alias_of}", known.alias_of
            known = await self.find_domain(domain)
        if (known is None and not self.is_local_domain(domain)) or (known is not None and not known.enabled):
            return frozenset()
        entry = await self.find_address(name)
        if entry is not None:
            return entry.senders
        found = await self._find(name)
        return frozenset() if found is None else frozenset({found.name})

    async def separator_of(self, domain: str, separator: str) -> str:
        """See Authenticator."""
        known = await self.find_domain(domain)
        return separator if known is None or known.detail is None else known.detail

    async def serves_domain(self, domain: str) -> bool:
        """See Authenticator."""
        return self.is_local_domain(domain) or await self.find_domain(domain.lower()) is not None


async def _answer(given: T | Awaitable[T]) -> T:
    return await given if inspect.isawaitable(given) else given
