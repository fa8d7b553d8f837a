"""`mailserver delegate`: accounts of a directory that may log in as others."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.cli.account_stores import author
from mailserver.cli.accounts import Accounts, on_accounts
from mailserver.cli.address_names import local_domains, opened
from mailserver.cli.columns import plain, print_table
from mailserver.cli.options import FullHelpGroup
from mailserver.directory import delegates, field_rules, reading
from mailserver.directory.database import Database
from mailserver.directory.delegates import StoredDelegate

_TIME: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_SECONDS: Final = {"h": 3600, "d": 86400, "w": 7 * 86400}

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
_ACCOUNT = click.argument("account", metavar="DELEGATE")
_OVER = click.argument("over", metavar="USER|DOMAIN")


@click.group("delegate", cls=FullHelpGroup)
def delegate() -> None:
    """Let accounts log in as others with their own password (master users), list and remove them."""


def _expiry(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """A time from now, or the end of a day in UTC, as seconds since 1970."""
    if value is None or value.lower() == "never":
        return None
    now = time.time()
    if found := _TIME.fullmatch(value.lower()):
        return int(now) + int(found[1]) * _SECONDS[found[2]]
    try:
        end = (datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f'{value!r} is not a time from now, such as 8h, 30d or 4w, a date such as 2030-12-31, or "never"'
        ) from error
    if end <= now:
        raise click.BadParameter(f"{value} is over")
    return int(end)


def _why(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        return field_rules.why(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@delegate.command("add")
@_ACCOUNT
@_OVER
@click.option("--expires", callback=_expiry, required=True, help="8h, 30d, 4w, a date (its end, UTC), or never.")
@click.option("--why", callback=_why, required=True, help="The reason, for the record.")
@on_accounts
def add(accounts: Accounts, account: str, over: str, *, expires: int | None, why: str) -> None:
    """Let DELEGATE log in as USER, or as each user of DOMAIN, with its own password.

    A delegate that exists gets the new expiry and reason.
    """
    with opened(accounts) as database:
        name = _account_name(database, account)
        target = _over_name(accounts, database, over, name)
        delegates.put_delegate(database, author(), StoredDelegate(name, target, expires, why))
    config = accounts.config
    separator = "" if config is None else config.auth.master_separator
    user = target if "@" in target else f"USER@{target}"
    way = f"the name {user}{separator}{name}, or " if separator else ""
    click.echo(f"{name} may log in as {user} until {_until(expires)}: by {way}the authorization identity {user}")


@delegate.command("list")
@_JSON
@on_accounts
def list_delegates(accounts: Accounts, *, as_json: bool) -> None:
    """List the delegates, expired ones, too."""
    now = time.time()
    with opened(accounts) as database:
        found = list(delegates.delegates(database))
    if as_json:
        rows = [
            {
                "delegate": each.account,
                "over": each.over,
                "expires": each.expires,
                "expired": not each.is_valid(now),
                "why": each.why,
            }
            for each in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(
        ("DELEGATE", "LOGS IN AS", "EXPIRES", "WHY"),
        [
            (each.account, each.over, _end_of(each.expires) if each.is_valid(now) else "expired", plain(each.why))
            for each in found
        ],
    )


@delegate.command("remove")
@_ACCOUNT
@_OVER
@on_accounts
def remove(accounts: Accounts, account: str, over: str) -> None:
    """Let DELEGATE no longer log in as USER or DOMAIN. Its sessions as these end within a second."""
    with opened(accounts) as database:
        name, target = _name(account), _name(over)
        if delegates.find_delegate(database, name, target) is None:
            others = [each.over for each in delegates.delegates(database) if each.account == name]
            hint = f"logs in as {', '.join(others)}" if others else "is no delegate"
            raise click.ClickException(f"{name} does not log in as {target}: it {hint}")
        delegates.remove_delegate(database, author(), name, target)
    click.echo(f"{name} may no longer log in as {target}")


def _name(written: str) -> str:
    try:
        return normalise(written)
    except BadName as error:
        raise click.ClickException(f"{written!r}: {error}") from error


def _account_name(database: Database, written: str) -> str:
    name = _name(written)
    if reading.find_account(database, name) is None:
        raise click.ClickException(
            f"there is no user {name} in the directory: `mailserver user list` lists them, `mailserver user add` adds one"
        )
    return name


def _over_name(accounts: Accounts, database: Database, written: str, account: str) -> str:
    """A user or a domain; users of other back ends are not known here. Raises: click.ClickException."""
    name = written.lower() if written.startswith("@") else _name(written)
    domains = {*local_domains(accounts, database)}
    if accounts.domains is None:
        domains.add(name.partition("@")[2])
    users = {name} if reading.find_account(database, name) is not None else set()
    others = accounts.config is None or len(accounts.config.auth.backends) > 1
    try:
        return field_rules.over(name, account, domains, users, others=others)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _until(expires: int | None) -> str:
    return "it is removed" if expires is None else _end_of(expires)


def _end_of(expires: int | None) -> str:
    return "never" if expires is None else f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M} UTC"
