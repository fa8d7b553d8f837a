"""The addresses that the back ends know: resolution of a recipient, senders of an address, domains."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from attrs import evolve, frozen

from mailserver.auth import resolution
from mailserver.auth.interfaces import DomainEntry, Entry, IAddresses, IOwnAddresses, LookUpBudget, Resolution, User
from mailserver.auth.schemes.mail_address import normalise_recipient
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.auth.sources import Source
from mailserver.errors import AddressLoop, NoSuchUser, TooManyEnds

T = TypeVar("T")


@frozen
class _Place:
    """An address that somebody may want to send as."""

    name: str
    meant: str
    """The same in the domain that its own stands for."""
    known: DomainEntry | None
    """What is known of that domain."""
    is_local: bool

    @property
    def is_disabled(self) -> bool:
        return self.known is not None and not self.known.enabled


class Addresses:
    """Implements `resolution.Sources` over the back ends. All calls are made on one thread."""

    def __init__(
        self,
        sources: Sequence[Source],
        find: Callable[[str], Awaitable[User | None]],
        is_local_domain: Callable[[str], bool],
        pause: Callable[[], Awaitable[object]],
        default_domain: str = "",
        *,
        detail_separator: str = "+",
    ) -> None:
        """`find` returns the user of a name. `pause` gives the reactor a turn. Bare names are of `default_domain`.

        `detail_separator`: of details in targets, where the domain has none of its own.
        """
        self._with_addresses = [each for each in sources if IAddresses.providedBy(each.backend)]
        self._with_owners = [each for each in sources if IOwnAddresses.providedBy(each.backend)]
        self._find = find
        self._pause = pause
        self._default_domain = default_domain
        self._detail_separator = detail_separator
        self.is_local_domain = is_local_domain

    async def find_user(self, name: str) -> User | None:
        """See Sources."""
        return await self._find(name)

    async def find_address(self, name: str) -> Entry | None:
        """See Sources. The first back end that knows it answers."""
        if not _is_name(name.removeprefix("@")):
            # A detail that no name can have.
            return None
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

    async def resolve(self, address: str, separator: str, budget: LookUpBudget | None = None) -> Resolution:
        """See Authenticator."""
        try:
            name = await self._normal(address, separator)
        except BadName:
            raise NoSuchUser from None
        return await resolution.resolve(self, name, separator, self._pause, written=address, budget=budget)

    async def _normal(self, address: str, separator: str) -> str:
        """Normalise the address of a recipient. Raises: BadName, AuthUnavailable."""
        if _is_name(address):
            return normalise_recipient(address, "")
        try:
            domain = normalise(address.rpartition("@")[2])
            _meant, known = await resolution.follow_domains(self.find_domain, f"x@{domain}", [])
        except AddressLoop:
            known = None
        return normalise_recipient(address, separator if known is None or known.detail is None else known.detail)

    async def may_send_as(self, user: User, address: str) -> bool:
        """See Authenticator."""
        try:
            name = normalise(address)
            place = await self._follow(name)
        except (BadName, AddressLoop):
            return False
        if place.is_disabled:
            return False
        if {name, place.name} & {user.name, *user.addresses}:
            return True
        return user.name in await self._senders_at(place, self._whole(user.name))

    async def senders_of(self, address: str) -> frozenset[str]:
        """See Authenticator."""
        try:
            name = normalise(address)
            place = await self._follow(name)
        except (BadName, AddressLoop):
            return frozenset()
        if place.is_disabled:
            return frozenset()
        senders = set(await self._senders_at(place))
        for source in self._with_owners:
            for each in dict.fromkeys((name, place.name)):
                owners: frozenset[str] = await _answer(source.backend.find_owners(each))
                senders |= {owner for owner in owners if source.serves((owner,))}
        return frozenset(senders)

    async def _follow(self, name: str) -> _Place:
        """The place of a normalised address, without a detail that only its mail has. Raises: AddressLoop, AuthUnavailable."""
        if "@" not in name:
            return _Place(name, name, None, is_local=False)
        meant, known = await resolution.follow_domains(self.find_domain, name, [])
        place = _Place(name, meant, known, known is not None or self.is_local_domain(meant.rpartition("@")[2]))
        separator = self._detail_separator if known is None or known.detail is None else known.detail
        base, mark, _detail = name.rpartition("@")[0].partition(separator) if separator else (name, "", "")
        if not mark or not base or not place.is_local or await self._exists(place):
            return place
        return evolve(place, name=_with_local(name, base), meant=_with_local(meant, base))

    async def _exists(self, place: _Place) -> bool:
        for name in dict.fromkeys((place.name, place.meant)):
            if await self._find(name) is not None:
                return True
        return await self.find_address(place.meant) is not None

    async def _senders_at(self, place: _Place, whole: str = "") -> frozenset[str]:
        """The user of that name, or else the users of the entry. `whole`: only this user is asked for."""
        if not place.is_local:
            return frozenset()
        for name in dict.fromkeys((place.name, place.meant)):
            own = await self._find(name)
            if own is not None:
                # Whoever gets a copy of a user's mail must not write in the user's name.
                return frozenset({own.name})
        entry = await self.find_address(place.meant)
        senders = set() if entry is None else set(map(self._whole, entry.senders))
        if not senders or (whole and whole not in senders):
            return frozenset()
        try:
            found = await resolution.resolve(self, place.meant, self._detail_separator, self._pause)
        except (NoSuchUser, AddressLoop, TooManyEnds):
            # Nobody gets the answers to such an address.
            return frozenset()
        return frozenset(user.name for user, _detail in found.local if self._whole(user.name) in senders)

    def _whole(self, name: str) -> str:
        """The name with its domain: a bare one is of the default domain."""
        return name if "@" in name or not self._default_domain else f"{name}@{self._default_domain}"

    async def separator_of(self, domain: str, separator: str) -> str:
        """See Authenticator."""
        known = await self.find_domain(domain)
        return separator if known is None or known.detail is None else known.detail

    async def serves_domain(self, domain: str) -> bool:
        """See Authenticator."""
        return self.is_local_domain(domain) or await self.find_domain(domain.lower()) is not None


def _with_local(address: str, local: str) -> str:
    return f"{local}@{address.rpartition('@')[2]}"


def _is_name(text: str) -> bool:
    try:
        return bool(normalise(text))
    except BadName:
        return False


async def _answer(given: T | Awaitable[T]) -> T:
    return await given if inspect.isawaitable(given) else given
