"""Addresses as an administrator writes them: normalised, checked against the domains here, and followed for loops."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from typing import Final

import click

from mailserver.auth.schemes.mail_address import normalise_address
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.cli.accounts import Accounts
from mailserver.config import values
from mailserver.directory import addresses, reading
from mailserver.directory.changing import expect_free
from mailserver.directory.database import Database
from mailserver.directory.model import AddressKind, Refused, StoredDomain, Target
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.idn import ascii_name

_MOST_COMPARED: Final = 10_000
"""Accounts whose names are compared with a mistyped one."""
_MOST_SAID: Final = 10
"""Addresses about which there is a sentence."""
_MOST_FOLLOWED: Final = 1000
"""Addresses that are followed from one to find a loop."""


@contextlib.contextmanager
def opened(accounts: Accounts) -> Iterator[SQLiteDatabase]:
    """The open directory. Raises: click.ClickException, also for what is refused in the block."""
    store = accounts.directory
    if store is None:
        raise click.ClickException(
            f"{accounts.file.path} is a users file, and addresses are kept in a directory: `mailserver directory create` makes one,"
            " `mailserver directory import` takes the users; aliases of Postfix's files need no directory"
        )
    with store.opened() as database:
        try:
            yield database
        except Refused as error:
            raise click.ClickException(str(error)) from error


def local_domains(accounts: Accounts, database: Database) -> dict[str, str | None]:
    """The domains here, and the domain that each stands for, if it does."""
    found: dict[str, str | None] = dict.fromkeys(accounts.domains or ())
    found.update({domain.name: domain.alias_of for domain in addresses.domains(database)})
    return found


def address_name(accounts: Accounts, database: Database, written: str, *, local: bool = True) -> str:
    """Normalise an address; `local`: it must be of a domain here, "@domain" for all other addresses of it.

    Raises: click.ClickException.
    """
    try:
        name = f"@{normalise(written[1:])}" if written.startswith("@") else normalise_address(written)
    except BadName as error:
        raise click.ClickException(f"{written!r}: {error}".replace("a user name", "an address")) from error
    domain = name.partition("@")[2]
    domains = local_domains(accounts, database)
    if not domain:
        right = f"{name}@{next(iter(domains))}" if domains else f"{name}@DOMAIN"
        if not local and reading.find_account(database, name) is not None:
            return name
        raise click.ClickException(f"{written!r} has no domain; write {right}")
    if not local or (accounts.domains is None and not domains):
        return name
    if domain not in domains:
        near = difflib.get_close_matches(domain, domains, 1)
        hint = f"did you mean {near[0]!r}?" if near else "`mailserver domain add` adds it"
        raise click.ClickException(f"{domain!r} is not a domain of this server; {hint}")
    meant = domains[domain]
    if meant is not None:
        raise click.ClickException(
            f"{domain} stands for {meant}: add {name.partition('@')[0]}@{meant}, which has both names"
        )
    return name


def domain_name(accounts: Accounts, database: Database, written: str, *, new: bool = False) -> str:
    """Normalise a domain; it must be one of this server, unless it is new. Raises: click.ClickException."""
    bare = written.rstrip(".")
    try:
        name = values.host_name(ascii_name(bare) or bare)
    except ValueError as error:
        raise click.ClickException(f"{written!r}: {error}") from error
    domains = local_domains(accounts, database)
    if new or name in domains or accounts.domains is None:
        return name
    near = difflib.get_close_matches(name, domains, 1)
    hint = f"did you mean {near[0]!r}?" if near else "`mailserver domain list` lists them"
    raise click.ClickException(f"{name!r} is not a domain of this server; {hint}")


def detail_of(accounts: Accounts, database: Database | None = None, domain: str = "") -> str:
    """The separator of details of a domain: what the directory says, or the configuration."""
    stored = None if database is None else addresses.find_stored_domain(database, domain)
    if stored is not None:
        return stored.detail
    return "+" if accounts.config is None else accounts.config.lmtp.detail_separator


def absent_domains(accounts: Accounts, *names: str) -> list[StoredDomain]:
    """Domains as a directory that does not have them gets them: with the separator of details of the configuration."""
    return [StoredDomain(name, detail=detail_of(accounts)) for name in names]


def targets_of(
    accounts: Accounts, database: Database, address: str, written: Sequence[str], *, may_send: bool, force: bool
) -> list[Target]:
    """The targets of an address. Raises: click.ClickException for one that does not exist, or that leads back."""
    names = dict.fromkeys(address_name(accounts, database, each, local=False) for each in written)
    domains = local_domains(accounts, database)
    domains.setdefault(address.partition("@")[2], None)
    found: list[Target] = []
    for name in names:
        if addresses.kind_of(database, name) is AddressKind.USER:
            found.append(Target(name, may_send=may_send))
            continue
        if not force and name != address:
            _expect_reachable(accounts, database, name, domains)
        found.append(Target(name, is_account=False, may_send=False))
    if loop := find_loop(database, address, [target.name for target in found if not target.is_account]):
        raise click.ClickException(f"mail would go round in a loop: {' to '.join(loop)}")
    return found


def _expect_reachable(accounts: Accounts, database: Database, name: str, domains: dict[str, str | None]) -> None:
    """Raises: click.ClickException for an address here that does not exist, and for one elsewhere if no mail leaves."""
    if name.partition("@")[2] not in domains:
        if accounts.config is not None and accounts.config.submission.relay is None:
            raise click.ClickException(
                f"{name} is elsewhere, and mail cannot leave: [submission.relay] names no next hop;"
                " --force adds it all the same"
            )
        return
    if _exists(accounts, database, name, domains):
        return
    few = reading.count(database) <= _MOST_COMPARED
    near = difflib.get_close_matches(name, [each.name for each in reading.accounts(database)] if few else [], 1)
    hint = f"did you mean {near[0]}?" if near else f"`mailserver user add {name}` adds a user, --force does without"
    raise click.ClickException(f"there is no user or address {name}; {hint}")


def _exists(accounts: Accounts, database: Database, name: str, domains: dict[str, str | None]) -> bool:
    """Does it lead somewhere: by itself, by the domain that it stands for, without its detail, by a catch-all?"""
    local, _, domain = name.partition("@")
    domain = domains.get(domain) or domain
    separator = detail_of(accounts, database, domain)
    base = local.partition(separator)[0] if separator else local
    return any(
        addresses.kind_of(database, each) is not None
        for each in (f"{local}@{domain}", f"{base}@{domain}", f"@{domain}")
    )


def find_loop(database: Database, address: str, targets: Sequence[str]) -> list[str]:
    """The way from the address back to it over these targets; empty if there is none."""
    ways: list[list[str]] = [[address, target] for target in targets]
    followed: set[str] = set()
    while ways and len(followed) < _MOST_FOLLOWED:
        way = ways.pop()
        name = way[-1]
        if name == address:
            return way
        if name in followed:
            continue
        followed.add(name)
        stored = addresses.find_stored(database, name)
        if stored is not None:
            ways.extend([*way, target.name] for target in stored.targets if not target.is_account)
    return []


def expect_new_aliases(accounts: Accounts, written: Sequence[str]) -> frozenset[str]:
    """The names of aliases that a new user is to have. Raises: click.ClickException for one that is taken."""
    if not written:
        return frozenset()
    if accounts.directory is not accounts.file:
        raise click.ClickException(
            f"{accounts.file.path} is a users file, which keeps no aliases: `mailserver directory create` makes a directory"
        )
    with opened(accounts) as database:
        names = frozenset(address_name(accounts, database, each) for each in written)
        for name in names:
            expect_free(database, name)
    return names


def addresses_only_to(accounts: Accounts, user: str) -> list[str]:
    """Sentences about the aliases and groups that lead to the user alone; of many, the first ones."""
    if accounts.directory is None:
        return []
    with opened(accounts) as database:
        found = addresses.addresses_only_to(database, user)
    lines = [
        f"{name} leads to {user} alone: mail to it is refused then; `mailserver {kind.value} add {name} TARGET` adds"
        f" another, `mailserver {kind.value} remove {name}` removes it"
        for name, kind in found[:_MOST_SAID]
    ]
    return lines + ([f"and {len(found) - _MOST_SAID} more of these"] if len(found) > _MOST_SAID else [])
