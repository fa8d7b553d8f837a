"""`mailserver directory`: make, fill, check and copy a directory, beside a running, stopped or killed server."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from mailserver.auth.backends.directory_lines import new_account
from mailserver.auth.backends.users_file import read_text
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import BadLine, BadName, name_of
from mailserver.cli.account_stores import DirectoryStore, author, stores_of
from mailserver.cli.columns import plain, print_table
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail
from mailserver.cli.user_mail import reload_users
from mailserver.cli.users_file import EntryExists
from mailserver.config.model import Config
from mailserver.directory import changing, migrations, reading
from mailserver.directory.model import Change, DirectoryUnavailable, NewAccount, Refused
from mailserver.directory.sqlite import SQLiteDatabase

_MOST: Final = 20
"""Faulty lines, and accounts, that are listed."""

Work = Callable[..., None]


def on_directory(function: Work) -> Work:
    """Decorate a command: pass it the directory of the configuration, or of --directory, and the configuration if there is one."""

    @config_option
    @click.option(
        "--directory",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Work on this file without a configuration, as the user who calls.",
    )
    @wraps(function)
    def wrapped(configuration: Path, path: Path | None, **arguments: Any) -> None:
        if path is not None:
            function(DirectoryStore(path.absolute()), None, **arguments)
            return
        config = load_or_fail(configuration)
        store = next((each for each in stores_of(config) if isinstance(each, DirectoryStore)), None)
        if store is None:
            raise click.ClickException(
                f"{configuration} [auth] backends has no `directory:PATH`; --directory names a file"
            )
        function(store, config, **arguments)

    return wrapped


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Turn the faults of a directory into those of a command."""
    try:
        yield
    except (DirectoryUnavailable, Refused) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@click.group("directory", cls=FullHelpGroup)
def directory() -> None:
    """Make, import, export, plan, apply, check, upgrade, copy and restore the directory of accounts."""


@directory.command("create")
@on_directory
def create(store: DirectoryStore, _config: Config | None) -> None:
    """Make an empty directory. The service's user must be able to write where it is."""
    with _sentences(), store.as_owner():
        try:
            store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            SQLiteDatabase.create(store.path).close()
        except (PermissionError, DirectoryUnavailable) as error:
            if store.server is None or not (
                isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError)
            ):
                raise
            raise click.ClickException(_no_permission(store.path.parent, store.server.user)) from error
    click.echo(
        f"made {store.path}; `mailserver user add` adds accounts, `mailserver directory import` those of a users file"
    )


def _no_permission(place: Path, user: str) -> str:
    return (
        f"{user}, the service's user, may not write in {place}, or not reach it, as below a state_dir of root; "
        f"`install -d -o {user} -m 700 DIRECTORY` makes a directory for it"
    )


@directory.command("import")
@click.argument("users_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be imported.")
@on_directory
def import_users(store: DirectoryStore, config: Config | None, users_file: Path, *, dry_run: bool) -> None:
    """Add the accounts of USERS_FILE, in Dovecot's passwd-file format: all, or none where one exists already.

    Passwords, SCRAM keys, `!` and `nologin`, home, full name, allow_nets, userdb_addresses and the quota fields are taken.
    """
    try:
        text, _status = read_text(users_file)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{users_file}: {error}") from error
    found, faults, left = _read(text)
    for number, reason in faults[:_MOST]:
        click.echo(f"{users_file} line {number}: {reason}", err=True)
    if len(faults) > _MOST:
        click.echo(f"and {len(faults) - _MOST} more lines that cannot be used", err=True)
    for name, times in sorted(left.items()):
        click.echo(
            f"the extra field {plain(name)} of {times} accounts has no place in a directory: it is left out", err=True
        )
    if faults:
        raise click.ClickException("nothing was imported: mend or remove these lines first")
    print_unusable(list(unusable_passwords((each.name, each.password.secret) for each in found)))
    if dry_run:
        click.echo(f"{len(found)} accounts would be imported")
        return
    try:
        with store.opened() as database:
            number = changing.import_accounts(database, author(), found)
    except EntryExists as error:
        raise click.ClickException(f"nothing was imported: {error.args[0]} exists in {store.path} already") from error
    click.echo(f"imported {number} accounts")
    reload_users(config)


def unusable_passwords(stored: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Of accounts and their stored passwords, those by which nobody can log in, each with the reason."""
    for name, secret in stored:
        try:
            if secret:
                schemes.parse(secret)
        except schemes.BadHash as error:
            yield name, str(error)


def print_unusable(found: Sequence[tuple[str, str]]) -> None:
    """Print the first of them, to standard error."""
    for name, reason in found[:_MOST]:
        click.echo(
            f"the stored password of {name} cannot be used: {plain(reason)}; `mailserver user password {name}` sets another",
            err=True,
        )
    if len(found) > _MOST:
        click.echo(f"and {len(found) - _MOST} more passwords that cannot be used", err=True)


def _read(text: str) -> tuple[list[NewAccount], list[tuple[int, str]], Counter[str]]:
    """The accounts of a users file, its faulty lines, and how many accounts have each field without a place."""
    found: dict[str, NewAccount] = {}
    faults: list[tuple[int, str]] = []
    left: Counter[str] = Counter()
    for number, line in enumerate(text.split("\n"), 1):
        if name_of(line) is None:
            continue
        try:
            account, unknown = new_account(line)
        except (BadLine, BadName) as error:
            faults.append((number, str(error)))
            continue
        if account.name in found:
            faults.append((number, f"{account.name} is in the file twice"))
        found.setdefault(account.name, account)
        left.update(unknown)
    return list(found.values()), faults, left


@directory.command("upgrade")
@on_directory
def upgrade(store: DirectoryStore, _config: Config | None) -> None:
    """Bring the tables of an older release up to date. The server runs on meanwhile."""
    with store.opened() as database:
        applied = migrations.upgrade(database)
    click.echo(f"upgraded {store.path} by {applied} steps" if applied else f"{store.path} is up to date")


@directory.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@on_directory
def backup(store: DirectoryStore, _config: Config | None, target: Path) -> None:
    """Write a copy of the directory, as it is at one moment, to the new file TARGET."""
    with store.opened() as database:
        database.backup(target.absolute())
    click.echo(f"wrote {target}")


@directory.command("restore")
@click.argument("copy", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
@on_directory
def restore(store: DirectoryStore, config: Config | None, copy: Path, *, yes: bool) -> None:
    """Replace all of the directory by COPY, which `backup` wrote. A running server ends all sessions.

    A copy must not be moved over the file of a directory: the changes of its companion FILE-wal would be mixed with it.
    """
    if not yes:
        click.confirm(f"Replace {store.path}? Changes since the copy are lost.", abort=True)
    with store.opened() as database:
        _identifier, last = reading.identity(database)
        database.restore(copy.absolute(), lambda restored: changing.mark_restored(restored, author(), last))
    click.echo(f"{store.path} is as in {copy}")
    reload_users(config)


@directory.command("changes")
@click.option("--since", type=int, default=0, help="Only changes after this number.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@on_directory
def changes(store: DirectoryStore, _config: Config | None, *, since: int, as_json: bool) -> None:
    """List the recorded changes: number, time, author, what, account. The last 10,000 are kept."""
    with store.opened() as database:
        rows = list(reading.changes(database, since))
    if as_json:
        data = [
            {
                "number": each.serial,
                "at": each.at,
                "who": each.who,
                "what": each.what,
                "user": each.account,
                "facts": dict(each.facts),
            }
            for each in rows
        ]
        click.echo(json.dumps(data, indent=2))
        return
    print_table(
        ("NUMBER", "TIME", "BY", "CHANGE", "CONCERNS"),
        [(str(each.serial), _time(each.at), each.who, _words(each), _concerns(each)) for each in rows],
    )


def _concerns(change: Change) -> str:
    return change.account or str(change.facts.get("address") or change.facts.get("domain") or "")


def _words(change: Change) -> str:
    if new := change.facts.get("new"):
        return f"{change.what} to {new}"
    if number := change.facts.get("number"):
        return f"{number} {change.what}"
    return change.what


def _time(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
