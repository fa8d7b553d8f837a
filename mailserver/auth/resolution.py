"""What an address leads to (no I/O): domain alias, the address itself, the address without its detail, the catch-all.

The order is that of Postfix's virtual(5), so that a file of its aliases means the same here. An alias comes before a user of
the same name, and an alias that names itself means that user. A detail (RFC 5233) is carried on to every target that has
none. The catch-all takes nothing from a user or another address, nor from their details. Targets that do not exist are
left out, unless nothing else is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from attrs import define, field, frozen

from mailserver.auth.interfaces import DomainEntry, Entry, LookUpBudget, Resolution, User
from mailserver.errors import AddressLoop, NoSuchUser, TooManyEnds

MAX_DEPTH: Final = 10
"""Addresses on the way to one end."""
MAX_ENDS: Final = 1000
"""Ends of one address."""
_MAX_LOOKED_AT: Final = 2 * MAX_ENDS
"""Targets of one address that are looked up, existing or not."""
_MAX_TARGETS: Final = 10 * MAX_ENDS
"""Targets of all addresses on the ways, each as often as it is named: groups may have many members in common."""
_TURN: Final = 32
"""Targets that are looked at in one turn of the reactor."""


class Sources(Protocol):
    """What is known of addresses. Names are normalised. Each call may raise AuthUnavailable."""

    async def find_user(self, name: str) -> User | None:
        """The user of that name."""

    async def find_address(self, name: str) -> Entry | None:
        """The alias, group or forward of that name; "@domain" is the catch-all."""

    async def find_domain(self, name: str) -> DomainEntry | None:
        """What is known of a domain besides the configuration."""

    def is_local_domain(self, domain: str) -> bool:
        """Is it a domain of the configuration?"""


@frozen
class _Step:
    """An address that is to be looked up."""

    name: str
    """In lower case."""
    written: str
    """With the case of its detail."""
    detail: str
    """Of the address that led to it; its own has precedence."""
    way: tuple[str, ...]
    """The addresses that led to it, the first one first."""
    depth: int = 0
    """How many entries led to it."""


@define
class _Found:
    local: dict[tuple[str, str], User] = field(factory=dict)
    """By name and detail, in their order."""
    elsewhere: dict[str, None] = field(factory=dict)
    path: list[str] = field(factory=list)
    domains: dict[str, DomainEntry | None] = field(factory=dict)
    """Those that were asked for: the targets of a group are of few."""
    looked_at: int = 0
    targets: int = 0

    def check(self) -> None:
        """Raises: TooManyEnds."""
        ends = len(self.local) + len(self.elsewhere)
        if ends > MAX_ENDS or self.looked_at > _MAX_LOOKED_AT or self.targets > _MAX_TARGETS:
            raise TooManyEnds


async def resolve(
    sources: Sources,
    address: str,
    separator: str,
    pause: Callable[[], Awaitable[object]] | None = None,
    *,
    written: str | None = None,
    budget: LookUpBudget | None = None,
) -> Resolution:
    """The ends of a normalised address. `separator`: of details, where the domain has none of its own.

    `written`: the address with the case of its detail. `budget`: the look-ups that it may take, none: MAX_ENDS alone counts. `pause` is awaited between the targets of a large group.
    Raises: NoSuchUser, AddressLoop, TooManyEnds, AuthUnavailable.
    """
    found = _Found()
    seen: set[tuple[str, str]] = set()
    steps = [_Step(address, written or address, "", ())]
    work = 0
    while steps:
        step = steps.pop()
        work += 1
        if pause is not None and work >= _TURN:
            work = 0
            await pause()
        if (step.name, step.detail) in seen and step.name not in step.way:
            continue
        seen.add((step.name, step.detail))
        found.looked_at += 1
        if budget is not None:
            budget.take(1)
        onward = await _follow(sources, step, separator, found)
        found.targets += len(onward)
        found.check()
        steps.extend(reversed(onward))
        # Reading the targets of a large group takes as long as looking some of them up.
        work += len(onward) // _TURN
        if budget is not None:
            budget.left -= len(onward) // _TURN
    if not found.local and not found.elsewhere:
        raise NoSuchUser
    local = tuple((user, detail) for (_name, detail), user in found.local.items())
    return Resolution(local, tuple(found.elsewhere), tuple(found.path))


async def _follow(sources: Sources, step: _Step, separator: str, found: _Found) -> list[_Step]:
    """Look one address up: note its end, or return the addresses that it leads to."""
    if step.name in step.way and step.way[-1] != step.name:
        raise AddressLoop
    if step.depth > MAX_DEPTH:
        raise AddressLoop
    name, domain = step.name, step.name.rpartition("@")[2] if "@" in step.name else ""
    known = None
    if domain:
        name, known = await follow_domains(lambda each: _find_domain(sources, each, found), name, found.path)
        domain = name.rpartition("@")[2]
    if known is not None and not known.enabled:
        found.path.append(f"the domain {domain} is disabled")
        return []
    if step.way and domain and known is None and not sources.is_local_domain(domain):
        found.elsewhere[step.name] = None
        found.path.append(f"{step.name} is elsewhere")
        return []
    own = separator if known is None or known.detail is None else known.detail
    names_itself = bool(step.way) and step.way[-1] == step.name
    followed = await _look_up(sources, name, step, step.detail, found, as_user=names_itself)
    local, at, rest = name.rpartition("@") if domain else (name, "", "")
    base, mark, _detail = local.partition(own) if own else (local, "", "")
    as_written = step.written.rpartition("@")[0] if at else step.written
    detail = as_written.partition(own)[2] if mark else ""
    if followed is None and mark and base:
        followed = await _look_up(sources, f"{base}{at}{rest}", step, detail or step.detail, found)
    catch_all = f"@{domain}"
    # A target of the catch-all that does not exist must not come back to it.
    if followed is None and domain and catch_all not in step.way:
        entry = await sources.find_address(catch_all)
        if entry is not None:
            found.path.append(f"{name} is unknown, and the catch-all of {domain} takes it")
            followed = _targets(entry, step, "", catch_all)
    if followed is None:
        found.path.append(f"{name} is unknown")
    return followed or []


async def follow_domains(
    find: Callable[[str], Awaitable[DomainEntry | None]], name: str, path: list[str]
) -> tuple[str, DomainEntry | None]:
    """The address in the domain that its own stands for, and what `find` knows of that; `path` gets a sentence a step.

    A disabled domain stands for none: it ends the way. Raises: AddressLoop, AuthUnavailable.
    """
    domain = name.rpartition("@")[2]
    known = await find(domain)
    passed = {domain}
    while known is not None and known.alias_of is not None and known.enabled:
        before, domain = domain, known.alias_of
        if domain in passed or len(passed) > MAX_DEPTH:
            raise AddressLoop
        passed.add(domain)
        meant = f"{name.rpartition('@')[0]}@{domain}"
        path.append(f"{name} is {meant}, as {before} stands for {domain}")
        name = meant
        known = await find(domain)
    return name, known


async def _find_domain(sources: Sources, name: str, found: _Found) -> DomainEntry | None:
    if name not in found.domains:
        found.domains[name] = await sources.find_domain(name)
    return found.domains[name]


async def _look_up(
    sources: Sources, name: str, step: _Step, detail: str, found: _Found, *, as_user: bool = False
) -> list[_Step] | None:
    """The targets of a name, none for a user, which is noted; None if it is unknown. `as_user`: it is no alias."""
    entry = None if as_user else await sources.find_address(name)
    if entry is not None:
        found.path.append(f"{name} leads to {_words(entry.targets)}")
        return _targets(entry, step, detail, name)
    user = await sources.find_user(name)
    if user is None:
        return None
    found.local.setdefault((user.name, detail), user)
    found.path.append(f"{name} is a user" + (f", with the detail {detail}" if detail else ""))
    return []


def _targets(entry: Entry, step: _Step, detail: str, name: str) -> list[_Step]:
    if len(entry.targets) > MAX_ENDS:
        raise TooManyEnds
    way = (*step.way, *dict.fromkeys((step.name, name)))
    return [_Step(target.lower(), target, detail, way, step.depth + 1) for target in entry.targets]


def _words(targets: tuple[str, ...]) -> str:
    rest = len(targets) - 5
    return ", ".join(targets[:5]) + (f" and {rest} more" if rest > 0 else "")
