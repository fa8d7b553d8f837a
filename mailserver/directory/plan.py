"""The steps from one document to another, and their faults (no I/O)."""

from __future__ import annotations

import enum
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import attrs
from attrs import frozen

from mailserver.directory import app_password_plan, field_rules
from mailserver.directory.address_check import Names, Sort, find_faults
from mailserver.directory.document import AppPassword, Delegate, Document, User
from mailserver.directory.document_parse import Parsed
from mailserver.directory.document_tables import Fault, delegate_key, domain_key
from mailserver.directory.model import State, StoredAddress, StoredDomain

Item = StoredDomain | User | StoredAddress | Delegate | AppPassword
T = TypeVar("T", StoredDomain, User, StoredAddress, Delegate)
_NAMED: Final = 3
"""Targets that the words of a step name."""


class Action(enum.Enum):
    """What a step does."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


@frozen
class Step:
    """One row that becomes another one. `before` is None for a new row, `after` for one that goes."""

    kind: str
    """"domain", "user", "app_password", "alias", "group", "forward" or "delegate"."""
    name: str
    before: Item | None
    after: Item | None

    @property
    def action(self) -> Action:
        """What the step does."""
        if self.before is None:
            return Action.ADD
        return Action.REMOVE if self.after is None else Action.CHANGE

    def words(self) -> str:
        """What is different, in words without secrets."""
        match self.before, self.after:
            case (AppPassword(), _) | (_, AppPassword()):
                return app_password_plan.words(
                    self.before if isinstance(self.before, AppPassword) else None,
                    self.after if isinstance(self.after, AppPassword) else None,
                )
            case StoredAddress() as before, StoredAddress() as after:
                return "; ".join(_address_words(before, after))
            case (None, StoredAddress(targets=targets)) | (StoredAddress(targets=targets), None):
                return f"leads to {_names([each.name for each in targets])}"
            case None, User(password=None):
                return "without a password"
            case User(), None:
                return "its mail stays where it is"
            case User() as before, User() as after:
                return "; ".join(_user_words(before, after))
            case StoredDomain() as before, StoredDomain() as after:
                return "; ".join(_domain_words(before, after))
            case None, StoredDomain(alias_of=str(other)):
                return f"stands for {other}"
            case _:
                return ""


@frozen
class Surroundings:
    """What the directory's addresses lead to outside of it."""

    users: Container[str] = ()
    """Names of the accounts of other back ends."""
    domains: Collection[str] = ()
    """Those of the configuration."""
    has_other_users: bool = True
    """A back end may have users besides these."""
    any_domain: bool = False
    """The configuration is unknown: each domain may be one of it."""
    separator: str = "+"
    mail_leaves: bool = True


@frozen
class _Users:
    """The names of accounts here and in other back ends."""

    here: Container[str]
    others: Container[str]

    def __contains__(self, name: object) -> bool:
        return name in self.here or name in self.others


@frozen
class Plan:
    """The steps, in the order in which they are printed. With faults, none may be made."""

    steps: tuple[Step, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    """Sentences about what is odd and allowed."""


def make(before: Document, parsed: Parsed, around: Surroundings, *, delete: bool = False, force: bool = False) -> Plan:
    """The steps that make a directory as the document says.

    `delete`: what the document does not have goes; otherwise it stays. `force`: targets need not exist.
    """
    lines = parsed.lines
    notes: list[str] = []
    given = attrs.evolve(parsed.document, app_passwords=app_password_plan.completed(before, parsed.document, notes))
    after = given if delete else _merged(before, given)
    after = attrs.evolve(after, addresses=_with_accounts(after))
    after = attrs.evolve(after, app_passwords=app_password_plan.without_lost_keys(before, after, given.app_passwords))
    faults = [*parsed.faults, *_collisions(before, given, lines, delete=delete), *_domain_faults(after, lines)]
    faults += _delegate_faults(given, after, around, lines)
    faults += app_password_plan.faults(before, after, given.app_passwords, lines)
    for finding in find_faults(names_of(after, around)):
        if finding.address not in given.addresses:
            continue
        refused = finding.sort is Sort.LOOP or (finding.sort in {Sort.GONE, Sort.ELSEWHERE} and not force)
        if refused:
            faults.append(Fault(finding.text, lines.get(finding.address) or None))
        elif finding.sort is not Sort.DISABLED:
            notes.append(finding.text)
    return Plan(tuple(_steps(before, after)), tuple(faults), tuple(notes))


def names_of(document: Document, around: Surroundings) -> Names:
    """What has a name in a directory and around it."""
    configured: Container[str] = around.domains
    if around.any_domain:
        configured = {each.rpartition("@")[2] for each in (*document.users, *document.addresses)}
    return Names(
        _Users(document.users, around.users),
        document.addresses,
        document.domains,
        configured,
        around.separator,
        around.mail_leaves,
    )


def _merged(before: Document, given: Document) -> Document:
    return attrs.evolve(
        given,
        domains={**before.domains, **given.domains},
        users={**before.users, **given.users},
        addresses={**before.addresses, **given.addresses},
        delegates={**before.delegates, **given.delegates},
        app_passwords={**before.app_passwords, **given.app_passwords},
    )


def _with_accounts(document: Document) -> dict[str, StoredAddress]:
    """The addresses, with those targets marked that are accounts. Only these may send."""
    return {name: _with_marks(address, document.users) for name, address in document.addresses.items()}


def _with_marks(address: StoredAddress, users: Container[str]) -> StoredAddress:
    targets = [
        attrs.evolve(each, is_account=each.name in users, may_send=each.may_send and each.name in users)
        for each in address.targets
    ]
    return attrs.evolve(address, targets=tuple(targets))


def _collisions(before: Document, given: Document, lines: Mapping[str, int], *, delete: bool) -> Iterator[Fault]:
    if delete:
        return
    for name in given.users:
        if name in before.addresses:
            kind = before.addresses[name].kind.value
            yield Fault(
                f"the user {name} is {'an' if kind == 'alias' else 'a'} {kind} in the directory: remove that first",
                lines.get(name) or None,
            )
    for name in given.addresses:
        if name in before.users:
            yield Fault(f"{name} is a user in the directory: rename or delete that user first", lines.get(name) or None)


def _domain_faults(after: Document, lines: Mapping[str, int]) -> Iterator[Fault]:
    for domain in after.domains.values():
        if domain.alias_of is None:
            continue
        line = lines.get(domain_key(domain.name)) or None
        meant = after.domains.get(domain.alias_of)
        if meant is None:
            yield Fault(f"{domain.name} stands for {domain.alias_of}, which is no [[domain]] of the directory", line)
        elif meant.alias_of is not None:
            yield Fault(f"{domain.name} stands for {meant.name}, which itself stands for {meant.alias_of}", line)


def _delegate_faults(
    given: Document, after: Document, around: Surroundings, lines: Mapping[str, int]
) -> Iterator[Fault]:
    domains = {*after.domains, *around.domains}
    if around.any_domain:
        domains.update(each.rpartition("@")[2] for each in (*after.users, *after.addresses))
    users = _Users(after.users, around.users)
    for delegate in given.delegates.values():
        line = lines.get(delegate_key(delegate.account, delegate.over)) or None
        if delegate.account not in after.users:
            yield Fault(f"the delegate {delegate.account} is no user", line)
        here = {*domains, delegate.over.partition("@")[2]} if around.any_domain else domains
        try:
            field_rules.over(delegate.over, delegate.account, here, users, others=around.has_other_users)
        except ValueError as error:
            yield Fault(f"the delegate {delegate.account}: {error}", line)


def _steps(before: Document, after: Document) -> Iterator[Step]:
    yield from _differences("domain", before.domains, after.domains)
    yield from _differences("user", before.users, after.users)
    for key in dict.fromkeys([*before.app_passwords, *after.app_passwords]):
        had, has = before.app_passwords.get(key), after.app_passwords.get(key)
        if had != has:
            yield Step("app_password", f"{key[1]} of {key[0]}", had, has)
    for name in dict.fromkeys([*before.addresses, *after.addresses]):
        old, new = before.addresses.get(name), after.addresses.get(name)
        if old is not None:
            # Rows may say that an address elsewhere may send, which has no meaning.
            old = attrs.evolve(
                old,
                targets=tuple(attrs.evolve(each, may_send=each.may_send and each.is_account) for each in old.targets),
            )
        if old != new:
            kind = new or old
            yield Step(kind.kind.value if kind is not None else "", name, old, new)
    for key in dict.fromkeys([*before.delegates, *after.delegates]):
        was, becomes = before.delegates.get(key), after.delegates.get(key)
        if was != becomes:
            yield Step("delegate", f"{key[0]} over {key[1]}", was, becomes)


def _differences(kind: str, before: Mapping[str, T], after: Mapping[str, T]) -> Iterator[Step]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, User) and isinstance(new, User) and new.password is None:
            if attrs.evolve(new, password=old.password) == old:
                continue
        elif old == new:
            continue
        yield Step(kind, name, old, new)


def _address_words(before: StoredAddress, after: StoredAddress) -> Iterator[str]:
    if before.kind is not after.kind:
        yield f"becomes a {after.kind.value}"
    old, new = ({each.name: each for each in address.targets} for address in (before, after))
    if added := [name for name in new if name not in old]:
        yield f"gains {_names(added)}"
    if removed := [name for name in old if name not in new]:
        yield f"loses {_names(removed)}"
    both = [name for name in new if name in old]
    for words, wanted in (("may send as it", True), ("may not send as it any more", False)):
        if changed := [each for each in both if new[each].may_send is wanted and old[each].may_send is not wanted]:
            yield f"{_names(changed)} {words}"
    if linked := [each for each in both if new[each].is_account is not old[each].is_account]:
        yield f"{_names(linked)} {'is' if len(linked) == 1 else 'are'} now followed as the user of that name"
    if both != [name for name in old if name in new]:
        yield "another order"
    if before.enabled is not after.enabled:
        yield "enabled" if after.enabled else "disabled"
    if before.note != after.note:
        yield "another note"


def _user_words(before: User, after: User) -> Iterator[str]:
    if after.password is not None and after.password != before.password:
        yield "another password"
    if after.password_protocols != before.password_protocols:
        yield f"the password works for {_protocols(after.password_protocols)}"
    if before.state is not after.state:
        yield "enabled" if after.state is State.ACTIVE else "disabled"
    if before.limits != after.limits:
        yield f"limits {before.limits.text()} become {after.limits.text()}"
    if before.home != after.home:
        yield f"home {before.home or 'none'} becomes {after.home or 'none'}, and mail is not moved"
    if before.full_name != after.full_name:
        yield "another full name"


def _protocols(protocols: frozenset[str] | None) -> str:
    if protocols is None:
        return "all protocols"
    return ", ".join(sorted(protocols)) or "no protocol"


def _domain_words(before: StoredDomain, after: StoredDomain) -> Iterator[str]:
    if before.alias_of != after.alias_of:
        yield f"stands for {after.alias_of or 'itself'}"
    if before.detail != after.detail:
        yield f"details follow {after.detail!r}" if after.detail else "no details"
    if before.limits != after.limits:
        yield f"limits {before.limits} become {after.limits}"
    if before.enabled is not after.enabled:
        yield "enabled" if after.enabled else "disabled"


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "") or "nobody"
