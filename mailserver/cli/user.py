"""`mailserver user`: the accounts of the users file. The server takes up each change within a second."""

from __future__ import annotations

import difflib
import json
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from mailserver.auth import schemes
from mailserver.auth.passwd import BadName, PasswdEntry, normalise
from mailserver.auth.scram_fields import StaleKeys, keys_of, make_fields
from mailserver.auth.users_file import check
from mailserver.cli.columns import print_table
from mailserver.cli.options import Sentences, config_option, load_or_fail
from mailserver.cli.usersfile import EntryExists, NoSuchEntry, UsersFile
from mailserver.sasl.saslprep import Unpreparable
from mailserver.sasl.scram_keys import HASHES, BadKeys

_OFFERED = [name for name, row in schemes.SCHEMES.items() if row.make is not None and not row.binary]
"""Schemes that new passwords may have: slow ones."""


_NOLOGIN = "take the extra field `nologin` out of the user's line"
"""How to undo what an administrator wrote by hand."""


@frozen
class _Accounts:
    """The users file that a subcommand works on, and the domains that its names may have; None knows none."""

    file: UsersFile
    domains: tuple[str, ...] | None = None
    """In the order of the configuration, the default domain first."""
    domain_needed: bool = False
    """[mail] location has {domain}: mail of a name without one has no place."""
    scram_hashes: tuple[str, ...] = ("SHA-256",)
    """Hashes that SCRAM keys are stored for beside each password: those of [auth] mechanisms."""

    def name(self, written: str) -> str:
        """The normal spelling of a new user's name. Raises: click.ClickException."""
        try:
            name = normalise(written)
        except BadName as error:
            raise click.ClickException(f"{written!r}: {error}") from error
        domain = name.partition("@")[2]
        if not domain and self.domain_needed:
            right = f"{name}@{self.domains[0]}" if self.domains else f"{name}@DOMAIN"
            raise click.ClickException(
                f"{written!r} has no domain, and [mail] location keeps mail by {{domain}}; write {right}"
            )
        if domain and self.domains is not None and domain not in self.domains:
            near = difflib.get_close_matches(domain, self.domains, 1)
            hint = f"; did you mean {near[0]!r}?" if near else "; `mailserver domain add` adds it"
            raise click.ClickException(f"{domain!r} is not a domain of this server{hint}")
        return name


def _on_accounts(function: Callable[..., None]) -> Callable[..., None]:
    """Give a subcommand its accounts, from the configuration's users file or the one named; word its errors."""

    @config_option
    @click.option(
        "--users-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Work on this file, without any configuration.",
    )
    @wraps(function)
    def wrapped(configuration: Path, users_file: Path | None, **arguments: Any) -> None:
        accounts = _from_configuration(configuration) if users_file is None else _Accounts(UsersFile(users_file))
        try:
            function(accounts, **arguments)
        except NoSuchEntry as error:
            raise click.ClickException(f"{accounts.file.path} has no user {error.args[0]!r}") from error
        except EntryExists as error:
            raise click.ClickException(f"{accounts.file.path} has a user {error.args[0]!r} already") from error
        except (OSError, KeyError) as error:
            raise click.ClickException(f"{accounts.file.path}: {error}") from error

    return wrapped


def _from_configuration(path: Path) -> _Accounts:
    config = load_or_fail(path)
    for backend in config.auth.backends:
        kind, _, argument = backend.partition(":")
        if kind == "file":
            default = config.auth.default_domain
            # Stable: the others stay in their order.
            domains = sorted((domain.name.lower() for domain in config.domains), key=lambda name: name != default)
            needed = "{domain}" in config.mail.location
            hashes = {name.removeprefix("SCRAM-").removesuffix("-PLUS") for name in config.auth.mechanisms}
            scram_hashes = tuple(name for name in HASHES if name in hashes)
            return _Accounts(UsersFile(Path(argument), config.server.user), tuple(domains), needed, scram_hashes)
    raise click.ClickException(f"{path} [auth] backends names no users file: `file:PATH`")


def _with_password(function: Callable[..., None]) -> Callable[..., None]:
    """The options about how a new password comes and is stored."""
    scheme = click.option(
        "--scheme",
        type=click.Choice(_OFFERED, case_sensitive=False),
        default="ARGON2ID",
        show_default=True,
        help="How the password is stored.",
    )
    generate = click.option("--generate", is_flag=True, help="Make a random password and print it.")
    no_scram = click.option("--no-scram", is_flag=True, help="Store no keys for SCRAM beside the password.")
    return scheme(generate(no_scram(function)))


def ask_password(*, generate: bool, confirm: bool = True) -> str:
    """From the terminal, twice and unseen; else the first line of standard input; never from the command line."""
    if generate:
        password = secrets.token_urlsafe(15)
        click.echo(f"password: {password}")
        return password
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm))
    # Octets and not text: what cannot be decoded is refused with a sentence instead of a traceback.
    line = sys.stdin.buffer.readline(schemes.MAX_PASSWORD + 3)
    if not line.rstrip(b"\r\n"):
        raise click.ClickException("no password came: without a terminal it is the first line of standard input")
    try:
        return line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException("the password is not UTF-8") from error


def _store(password: str, scheme: str, scram_hashes: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The password field, and the extra fields of the SCRAM keys."""
    octets = password.encode("utf-8")
    try:
        stored = schemes.make(octets, scheme.upper())
    except schemes.BadHash as error:
        raise click.ClickException(str(error)) from error
    try:
        return stored, make_fields(stored, octets, scram_hashes)
    except Unpreparable as error:
        click.echo(f"no SCRAM keys are stored: the password cannot be prepared for them, as {error}", err=True)
        return stored, {}


@click.group("user", cls=Sentences)
def user() -> None:
    """Add, list, disable, enable and delete accounts."""


@user.command("add")
@click.argument("name")
@_with_password
@_on_accounts
def add(accounts: _Accounts, name: str, scheme: str, generate: bool, no_scram: bool) -> None:
    """Add the account NAME (user@domain). The password is asked for, or read from standard input."""
    plain = accounts.name(name)
    if accounts.file.path.exists() and any(entry.name == plain for entry in accounts.file.entries()):
        raise EntryExists(plain)
    password = ask_password(generate=generate)
    accounts.file.add(plain, *_store(password, scheme, () if no_scram else accounts.scram_hashes))
    click.echo(f"added {plain}")


@user.command("password")
@click.argument("name")
@_with_password
@_on_accounts
def change_password(accounts: _Accounts, name: str, scheme: str, generate: bool, no_scram: bool) -> None:
    """Set another password for NAME. It is asked for, or read from standard input."""
    plain = _existing(accounts, name).name
    password = ask_password(generate=generate)
    accounts.file.set_password(plain, *_store(password, scheme, () if no_scram else accounts.scram_hashes))
    click.echo(f"changed the password of {plain}")
    if (entry := _existing(accounts, plain)).disabled:
        how = _NOLOGIN if "nologin" in entry.extra else f"`mailserver user enable {plain}` lets the user log in again"
        click.echo(f"{plain} stays disabled: {how}")


@user.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@_on_accounts
def list_users(accounts: _Accounts, *, as_json: bool) -> None:
    """List the accounts: name, how the password is stored, whether it may log in.

    What is wrong with single lines of the file is printed on standard error, as `mailserver check` does.
    """
    rows = [(entry.name, _scheme_of(entry), not entry.disabled) for entry in accounts.file.entries()]
    if as_json:
        told = [{"user": name, "password": scheme, "enabled": enabled} for name, scheme, enabled in rows]
        click.echo(json.dumps(told, indent=2))
    else:
        print_table(
            ("USER", "PASSWORD", "STATE"),
            [(name, scheme, "enabled" if enabled else "disabled") for name, scheme, enabled in rows],
        )
    for problem in check(accounts.file.path):
        click.echo(str(problem), err=True)


@user.command("disable")
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let the user log in again, as `enable` does.")
@_on_accounts
def disable(accounts: _Accounts, name: str, undo: bool) -> None:
    """Refuse logins of NAME from now on. Mail is still taken; the password is kept."""
    _set_disabled(accounts, name, disabled=not undo)


@user.command("enable")
@click.argument("name")
@_on_accounts
def enable(accounts: _Accounts, name: str) -> None:
    """Let NAME log in again, with the password kept."""
    _set_disabled(accounts, name, disabled=False)


def _set_disabled(accounts: _Accounts, name: str, *, disabled: bool) -> None:
    plain = _existing(accounts, name).name
    accounts.file.set_disabled(plain, disabled=disabled)
    if not disabled and _existing(accounts, plain).disabled:
        raise click.ClickException(
            f"{plain} stays disabled by the extra field `nologin` of its line: take it out there"
        )
    click.echo(f"{'disabled' if disabled else 'enabled'} {plain}")


@user.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_on_accounts
def delete(accounts: _Accounts, name: str, yes: bool) -> None:
    """Delete the account NAME. Its mail stays on disk."""
    plain = _existing(accounts, name).name
    if not yes:
        click.confirm(f"Delete {plain}? Its mail stays on disk.", abort=True)
    accounts.file.delete(plain)
    click.echo(f"deleted {plain}")


def _existing(accounts: _Accounts, written: str) -> PasswdEntry:
    """The entry of a user that must be there; its domain may be gone. Raises: NoSuchEntry."""
    try:
        name = normalise(written)
    except BadName as error:
        raise NoSuchEntry(written) from error
    for entry in accounts.file.entries():
        if entry.name == name:
            return entry
    raise NoSuchEntry(name)


def _scheme_of(entry: PasswdEntry) -> str:
    if not entry.stored:
        return "none"
    try:
        kind = schemes.parse(entry.stored).kind
    except schemes.BadHash:
        return "cannot be used"
    return " + ".join([kind, *_scram_beside(entry)])


def _scram_beside(entry: PasswdEntry) -> Iterator[str]:
    for name in HASHES:
        try:
            if keys_of(entry, name) is not None and not entry.stored.startswith("{SCRAM"):
                yield f"SCRAM-{name}"
        except StaleKeys:
            yield f"SCRAM-{name} of another password"
        except BadKeys as error:
            yield str(error)
