"""`mailserver user`: the accounts of the users file or directory. The server uses each change within a second."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import click

from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import PasswdEntry
from mailserver.auth.schemes.scram_fields import StaleKeys, keys_of, make_fields, under_parameters
from mailserver.cli.account_stores import AccountStore, DirectoryStore
from mailserver.cli.accounts import Accounts, on_accounts
from mailserver.cli.address_names import addresses_only_to, expect_new_aliases
from mailserver.cli.columns import print_table
from mailserver.cli.options import FullHelpGroup
from mailserver.cli.user_mail import (
    expect_free,
    has_mail,
    move_aside,
    move_back,
    move_mail,
    place_of,
    reload_users,
    remove_marker,
)
from mailserver.sasl.saslprep import Unpreparable
from mailserver.sasl.scram_keys import HASHES, BadKeys

_OFFERED = [name for name, row in schemes.SCHEMES.items() if row.make is not None and not row.binary]
"""Schemes for new passwords: the slow ones."""


_NOLOGIN = "remove the extra field `nologin` from the user's line"
"""The way to enable a user that was disabled by hand."""
_NO_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType({})


def _with_password(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the source and storage of a new password."""
    scheme = click.option(
        "--scheme",
        type=click.Choice(_OFFERED, case_sensitive=False),
        default="ARGON2ID",
        show_default=True,
        help="Scheme by which the password is stored.",
    )
    generate = click.option("--generate", is_flag=True, help="Make a random password and print it.")
    no_scram = click.option("--no-scram", is_flag=True, help="Store no SCRAM keys beside the password.")
    return scheme(generate(no_scram(function)))


def ask_password(*, generate: bool, confirm: bool = True) -> str:
    """Read a password from the terminal, hidden and twice, or from the first line of standard input."""
    if generate:
        password = secrets.token_urlsafe(15)
        click.echo(f"password: {password}")
        return password
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm))
    # Octets, not text: invalid UTF-8 is refused with a sentence instead of a traceback.
    line = sys.stdin.buffer.readline(schemes.MAX_PASSWORD + 3)
    if not line.rstrip(b"\r\n"):
        raise click.ClickException("no password was given: without a terminal it is the first line of standard input")
    try:
        return line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException("the password is not UTF-8") from error


def _store(
    password: str, scheme: str, scram_hashes: Iterable[str], shared: Mapping[str, str] = _NO_PARAMETERS
) -> tuple[str, dict[str, str]]:
    """The password field, and the extra fields of the SCRAM keys. `shared`: "rounds,salt" that they must have, by hash."""
    octets = password.encode("utf-8")
    try:
        stored = schemes.make(octets, scheme.upper())
    except schemes.BadHash as error:
        raise click.ClickException(str(error)) from error
    kind, _, hash_name = scheme.upper().partition("-")
    if kind == "SCRAM" and hash_name in shared:
        stored = under_parameters(hash_name, octets, shared[hash_name])
    try:
        return stored, make_fields(stored, octets, scram_hashes, shared=shared)
    except Unpreparable as error:
        click.echo(f"no SCRAM keys are stored, as SASLprep refuses the password: {error}", err=True)
        return stored, {}


@click.group("user", cls=FullHelpGroup)
def user() -> None:
    """Add, list, show, limit, disable, enable, rename and delete accounts, and set their passwords."""


@user.command("add")
@click.argument("name")
@click.option("--adopt-mail", is_flag=True, help="Give existing mail in the directory to the new user.")
@click.option("--fresh", is_flag=True, help="Move existing mail in the directory aside, to a name with the date.")
@click.option("--alias", "aliases", multiple=True, metavar="ADDRESS", help="A further address of the user. Repeatable.")
@_with_password
@on_accounts
def add(
    accounts: Accounts,
    name: str,
    *,
    scheme: str,
    generate: bool,
    no_scram: bool,
    adopt_mail: bool,
    fresh: bool,
    aliases: tuple[str, ...],
) -> None:
    """Add the account NAME (user@domain). The password is asked for, or read from standard input.

    If the directory of NAME's mail already contains mail, of an earlier user or another program, one of --adopt-mail and
    --fresh is required.
    """
    if adopt_mail and fresh:
        raise click.UsageError("--adopt-mail and --fresh exclude each other")
    plain = accounts.name(name)
    accounts.expect_new(plain)
    new_aliases = expect_new_aliases(accounts, aliases)
    config, place = accounts.config, None
    if config is not None:
        place = place_of(config, plain, "")
        if place is not None and not has_mail(config, place):
            place = None
    if place is not None and not adopt_mail and not fresh:
        raise click.ClickException(
            f"{place} already contains mail: --adopt-mail gives it to {plain}, --fresh moves it aside"
        )
    password = ask_password(generate=generate)
    stored, scram = _store(password, scheme, () if no_scram else accounts.scram_hashes)
    if config is not None and place is not None and fresh:
        click.echo(f"moved the mail in {place} to {move_aside(config, plain, '')}")
    if isinstance(accounts.file, DirectoryStore):
        accounts.file.add(plain, stored, scram, new_aliases)
    else:
        accounts.file.add(plain, stored, scram)
    click.echo(f"added {plain}" + (f", with the mail in {place}" if adopt_mail and place is not None else ""))
    if new_aliases:
        click.echo(f"mail to {', '.join(sorted(new_aliases))} goes to {plain}, who may send as it")
    reload_users(config)


@user.command("password")
@click.argument("name")
@_with_password
@on_accounts
def change_password(accounts: Accounts, name: str, scheme: str, generate: bool, no_scram: bool) -> None:
    """Set another password for NAME. It is asked for, or read from standard input."""
    accounts = accounts.holding(name)
    plain = accounts.existing(name).name
    password = ask_password(generate=generate)
    # App passwords have their SCRAM keys under the same salt.
    shared = accounts.file.scram_parameters(plain)
    accounts.file.set_password(plain, *_store(password, scheme, () if no_scram else accounts.scram_hashes, shared))
    click.echo(f"changed the password of {plain}")
    reload_users(accounts.config)
    if (entry := accounts.existing(plain)).disabled:
        how = _NOLOGIN if "nologin" in entry.extra else f"`mailserver user enable {plain}` lets the user log in again"
        click.echo(f"{plain} stays disabled: {how}")


@user.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@on_accounts
def list_users(accounts: Accounts, *, as_json: bool) -> None:
    """List the accounts of all back ends that hold some: name, password scheme, whether it may log in, and where it is kept.

    Problems of single lines are printed on standard error, as by `mailserver check`.
    """
    rows: dict[str, tuple[str, bool, str]] = {}
    hidden: list[str] = []
    for store in accounts.stores:
        for entry in _entries(accounts, store):
            if entry.name not in rows:
                rows[entry.name] = _scheme_of(entry), not entry.disabled, str(store.path)
            elif rows[entry.name][2] != str(store.path):
                hidden.append(f"{entry.name} of {store.path} is not used, as {rows[entry.name][2]} has that user")
    if as_json:
        data = [
            {"user": name, "password": scheme, "enabled": enabled, "kept_in": path}
            for name, (scheme, enabled, path) in rows.items()
        ]
        click.echo(json.dumps(data, indent=2))
    else:
        # Where there is one place, it needs no column.
        width = 4 if accounts.behind else 3
        print_table(
            ("USER", "PASSWORD", "STATE", "KEPT IN")[:width],
            [
                (name, scheme, "enabled" if enabled else "disabled", path)[:width]
                for name, (scheme, enabled, path) in rows.items()
            ],
        )
    for line in [*hidden, *(str(problem) for store in accounts.stores for problem in store.problems())]:
        click.echo(line, err=True)


def _entries(accounts: Accounts, store: AccountStore) -> Iterator[PasswdEntry]:
    try:
        yield from store.entries()
    except FileNotFoundError:
        # One of several that has no user yet.
        if not accounts.behind:
            raise


_KEEP_SESSIONS = click.option("--keep-sessions", is_flag=True, help="Do not end the user's open sessions.")


@user.command("disable")
@click.argument("name")
@click.option("--undo", is_flag=True, help="Let the user log in again, as `enable` does.")
@_KEEP_SESSIONS
@on_accounts
def disable(accounts: Accounts, name: str, undo: bool, keep_sessions: bool) -> None:
    """Refuse logins of NAME, and end its open sessions. Mail is still accepted; the password is kept."""
    plain = _set_disabled(accounts, name, disabled=not undo)
    if undo or keep_sessions:
        reload_users(accounts.config)
    else:
        reload_users(accounts.config, plain, "this account is disabled")


@user.command("enable")
@click.argument("name")
@on_accounts
def enable(accounts: Accounts, name: str) -> None:
    """Let NAME log in again, with its old password."""
    _set_disabled(accounts, name, disabled=False)
    reload_users(accounts.config)


def _set_disabled(accounts: Accounts, name: str, *, disabled: bool) -> str:
    accounts = accounts.holding(name)
    plain = accounts.existing(name).name
    accounts.file.set_disabled(plain, disabled=disabled)
    if not disabled and accounts.existing(plain).disabled:
        raise click.ClickException(f"{plain} stays disabled by the extra field `nologin` in its line: remove it there")
    click.echo(f"{'disabled' if disabled else 'enabled'} {plain}")
    return plain


@user.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--keep-mail", is_flag=True, help="Leave the mail in its directory.")
@click.option(
    "--keep-sessions", is_flag=True, help="Do not end the user's open sessions, and leave the mail in its directory."
)
@on_accounts
def delete(accounts: Accounts, name: str, yes: bool, keep_mail: bool, keep_sessions: bool) -> None:
    """Delete the account NAME, end its open sessions, and move its mail aside, with the date in the directory's name."""
    accounts = accounts.holding(name)
    entry = accounts.existing(name)
    config = accounts.config
    orphans = addresses_only_to(accounts, entry.name)
    keep_mail = keep_mail or keep_sessions or config is None
    if not yes:
        mail = "stays where it is" if keep_mail else "is moved aside"
        for line in orphans:
            click.echo(line)
        click.confirm(f"Delete {entry.name}? Its mail {mail}.", abort=True)
    accounts.file.delete(entry.name)
    click.echo(f"deleted {entry.name}")
    if yes:
        for line in orphans:
            click.echo(line)
    if keep_sessions:
        reload_users(config)
        return
    reload_users(config, entry.name, "this account is deleted")
    place = None if config is None or keep_mail else place_of(config, entry.name, entry.home)
    if config is None or place is None:
        return
    try:
        aside = move_aside(config, entry.name, entry.home)
    except click.ClickException as error:
        raise click.ClickException(f"its mail stays in {place}: {error.message}") from error
    click.echo(f"its mail is in {aside}" if aside else "it had no mail")


@user.command("rename")
@click.argument("old")
@click.argument("new")
@on_accounts
def rename(accounts: Accounts, old: str, new: str) -> None:
    """Rename the account OLD to NEW (user@domain): its password, its addresses and its mail, with all UIDs.

    Its open sessions end. Mail for OLD is refused temporarily while the mail is moved, and permanently afterwards, unless an
    alias of the MTA accepts it. The same command completes a rename that was interrupted.
    """
    config = accounts.config
    entry, plain = accounts.existing(old), accounts.name(new)
    accounts.expect_new(plain)
    accounts = accounts.holding(old)
    if config is None:
        accounts.file.rename(entry.name, plain)
        click.echo(f"renamed {entry.name} to {plain}; its mail stays where it is")
        return
    source, target = place_of(config, entry.name, entry.home), place_of(config, plain, entry.home)
    if source is not None and target is None:
        raise click.ClickException(f"[mail] location gives no directory for {plain}")
    moves = source is not None and target is not None and source != target
    if moves and source is not None and target is not None:
        expect_free(config, source, target)
    reason = "this account is being renamed"
    reload_users(config, entry.name, reason)
    moved = bool(moves and target is not None and move_mail(config, entry.name, entry.home, target))
    try:
        accounts.file.rename(entry.name, plain)
    except (OSError, LookupError, click.ClickException):
        if moved and source is not None and target is not None:
            move_back(config, target, source)
        raise
    reload_users(config, entry.name, reason)
    if moved and source is not None:
        remove_marker(config, source)
    click.echo(f"renamed {entry.name} to {plain}" + (f"; its mail is in {target}" if moved else ""))


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
