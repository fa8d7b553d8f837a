"""The accounts that `mailserver user` changes: a users file, and the configuration that it belongs to."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from mailserver.auth.schemes.passwd import BadName, PasswdEntry, normalise
from mailserver.cli.options import config_option, load_or_fail
from mailserver.cli.users_file import EntryExists, NoSuchEntry, UsersFile
from mailserver.config.model import Config
from mailserver.sasl.scram_keys import HASHES


@frozen
class Accounts:
    """A users file, and the domains that its names may have; None: any."""

    file: UsersFile
    domains: tuple[str, ...] | None = None
    """In the order of the configuration, the default domain first."""
    domain_needed: bool = False
    """[mail] location contains {domain}, so every name needs a domain."""
    scram_hashes: tuple[str, ...] = ("SHA-256",)
    """Hashes for which SCRAM keys are stored: those of [auth] mechanisms."""
    config: Config | None = None
    """None with --users-file: then mail and the server are unknown."""

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
        if domain and self.domains is not None and domain not in self.domains:
            near = difflib.get_close_matches(domain, self.domains, 1)
            hint = f"; did you mean {near[0]!r}?" if near else "; `mailserver domain add` adds it"
            raise click.ClickException(f"{domain!r} is not a domain of this server{hint}")
        return name

    def existing(self, written: str) -> PasswdEntry:
        """The entry of an existing user; its domain may have been removed. Raises: NoSuchEntry."""
        try:
            name = normalise(written)
        except BadName as error:
            raise NoSuchEntry(written) from error
        for entry in self.file.entries():
            if entry.name == name:
                return entry
        raise NoSuchEntry(name)

    def expect_new(self, name: str) -> None:
        """Raises: EntryExists."""
        if self.file.path.exists() and any(entry.name == name for entry in self.file.entries()):
            raise EntryExists(name)


def on_accounts(function: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: pass it its accounts, from the configuration or --users-file, and report its errors."""

    @config_option
    @click.option(
        "--users-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Change this file without a configuration; mail and a running server are not touched.",
    )
    @wraps(function)
    def wrapped(configuration: Path, users_file: Path | None, **arguments: Any) -> None:
        accounts = _from_configuration(configuration) if users_file is None else Accounts(UsersFile(users_file))
        try:
            function(accounts, **arguments)
        except NoSuchEntry as error:
            raise click.ClickException(f"{accounts.file.path} has no user {error.args[0]!r}") from error
        except EntryExists as error:
            raise click.ClickException(f"{accounts.file.path} has a user {error.args[0]!r} already") from error
        except (OSError, KeyError) as error:
            raise click.ClickException(f"{accounts.file.path}: {error}") from error

    return wrapped


def _from_configuration(path: Path) -> Accounts:
    config = load_or_fail(path)
    for backend in config.auth.backends:
        kind, _, argument = backend.partition(":")
        if kind == "file":
            default = config.auth.default_domain
            # A stable sort: the other domains keep their order.
            domains = sorted((domain.name.lower() for domain in config.domains), key=lambda name: name != default)
            needed = "{domain}" in config.mail.location
            hashes = {name.removeprefix("SCRAM-").removesuffix("-PLUS") for name in config.auth.mechanisms}
            scram_hashes = tuple(name for name in HASHES if name in hashes)
            file = UsersFile(Path(argument), config.server.user)
            return Accounts(file, tuple(domains), needed, scram_hashes, config)
    raise click.ClickException(f"{path} [auth] backends has no users file, `file:PATH`")
