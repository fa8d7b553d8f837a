"""The accounts that `mailserver user` changes: a users file or directory, and the configuration that it belongs to."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import attrs
import click
from attrs import frozen

from mailserver.auth.schemes.passwd import BadName, PasswdEntry, normalise
from mailserver.cli.account_stores import AccountStore, DirectoryStore, stores_of
from mailserver.cli.options import config_option, load_or_fail
from mailserver.cli.users_file import EntryExists, NoSuchEntry, UsersFile
from mailserver.config.model import Config
from mailserver.directory import addresses
from mailserver.directory.changing import expect_free
from mailserver.sasl.scram_keys import HASHES


@frozen
class Accounts:
    """A users file or directory, and the domains that its names may have; None: any."""

    file: AccountStore
    domains: tuple[str, ...] | None = None
    """In the order of the configuration, the default domain first."""
    domain_needed: bool = False
    """[mail] location contains {domain}, so every name needs a domain."""
    scram_hashes: tuple[str, ...] = ("SHA-256",)
    """Hashes for which SCRAM keys are stored: those of [auth] mechanisms."""
    config: Config | None = None
    """None with --users-file or --directory: then mail and the server are unknown."""
    behind: tuple[AccountStore, ...] = ()
    """Further ones of the configuration, which are asked for users that `file` does not have."""

    @property
    def stores(self) -> tuple[AccountStore, ...]:
        """All of them, in the order in which the server asks them."""
        return (self.file, *self.behind)

    @property
    def directory(self) -> DirectoryStore | None:
        """The first directory of them."""
        return next((each for each in self.stores if isinstance(each, DirectoryStore)), None)

    def holding(self, written: str) -> Accounts:
        """The same, with `file` the one that has the user, and no others. Raises: NoSuchEntry, OSError."""
        return attrs.evolve(self, file=self._find(written)[0], behind=())

    def name(self, written: str) -> str:
        """Normalise the name of a new user. Raises: click.ClickException."""
        try:
            name = normalise(written)
        except BadName as error:
            raise click.ClickException(f"{written!r}: {error}") from error
        domain = name.partition("@")[2]
        if not domain and self.domain_needed:
            right = f"{name}@{self.domains[0]}" if self.domains else f"{name}@DOMAIN"
            raise click.ClickException(
                f"{written!r} has no domain, and [mail] location contains {{domain}}; write {right}"
            )
        if domain and self.domains is not None and domain not in self.domains and not self._in_directory(domain):
            near = difflib.get_close_matches(domain, self.domains, 1)
            hint = f"; did you mean {near[0]!r}?" if near else "; `mailserver domain add` adds it"
            raise click.ClickException(f"{domain!r} is not a domain of this server{hint}")
        return name

    def _in_directory(self, domain: str) -> bool:
        if self.directory is None:
            return False
        with self.directory.opened() as database:
            return addresses.find_stored_domain(database, domain) is not None

    def existing(self, written: str) -> PasswdEntry:
        """The entry of an existing user; its domain may have been removed. Raises: NoSuchEntry, OSError."""
        return self._find(written)[1]

    def _find(self, written: str) -> tuple[AccountStore, PasswdEntry]:
        try:
            name = normalise(written)
        except BadName as error:
            raise NoSuchEntry(written) from error
        for store in self.stores:
            try:
                entry = store.find(name)
            except FileNotFoundError:
                if not self.behind:
                    raise
                # One of several that has no user yet.
                continue
            if entry is not None:
                return store, entry
        raise NoSuchEntry(name)

    def expect_new(self, name: str) -> None:
        """Raises: EntryExists; click.ClickException for a user of another store, and for an alias or group."""
        if _has(self.file, name):
            raise EntryExists(name)
        for store in self.behind:
            if _has(store, name):
                raise click.ClickException(f"{store.path} has a user {name!r} already")
        if self.directory is not None:
            with self.directory.opened() as database:
                expect_free(database, name)


def _has(store: AccountStore, name: str) -> bool:
    # The first user makes a users file.
    with contextlib.suppress(FileNotFoundError):
        return store.find(name) is not None
    return False


def on_accounts(function: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: pass it its accounts, from the configuration, --users-file or --directory, and report its errors."""

    @config_option
    @click.option(
        "--users-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Change this file without a configuration; mail and a running server are not touched.",
    )
    @click.option(
        "--directory",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The same for this directory.",
    )
    @wraps(function)
    def wrapped(configuration: Path, users_file: Path | None, directory: Path | None, **arguments: Any) -> None:
        if users_file is not None and directory is not None:
            raise click.UsageError("--users-file and --directory exclude each other")
        if users_file is not None:
            accounts = Accounts(UsersFile(users_file))
        elif directory is not None:
            accounts = Accounts(DirectoryStore(directory.absolute()))
        else:
            accounts = from_configuration(configuration)
        try:
            function(accounts, **arguments)
        except NoSuchEntry as error:
            places = " and ".join(str(each.path) for each in accounts.stores)
            has = "have" if accounts.behind else "has"
            raise click.ClickException(f"{places} {has} no user {error.args[0]!r}") from error
        except EntryExists as error:
            raise click.ClickException(f"{accounts.file.path} has a user {error.args[0]!r} already") from error
        except (OSError, KeyError) as error:
            raise click.ClickException(f"{accounts.file.path}: {error}") from error

    return wrapped


def from_configuration(path: Path) -> Accounts:
    """The accounts of the back ends that can be changed, the first of which gets new ones. Raises: click.ClickException."""
    config = load_or_fail(path)
    stores = tuple(stores_of(config))
    if not stores:
        raise click.ClickException(f"{path} [auth] backends has neither `directory:PATH` nor `file:PATH`")
    default = config.auth.default_domain
    # A stable sort: the other domains keep their order.
    domains = sorted((domain.name.lower() for domain in config.domains), key=lambda name: name != default)
    needed = "{domain}" in config.mail.location
    hashes = {name.removeprefix("SCRAM-").removesuffix("-PLUS") for name in config.auth.mechanisms}
    scram_hashes = tuple(name for name in HASHES if name in hashes)
    return Accounts(stores[0], tuple(domains), needed, scram_hashes, config, stores[1:])
