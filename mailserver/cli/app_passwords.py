"""`mailserver user app-password`: passwords for single devices and programs, which can be limited, and revoked one by one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Final

import click

from mailserver.auth.app_passwords import generate, probe_of
from mailserver.cli.account_stores import DirectoryStore, author
from mailserver.cli.accounts import Accounts, on_accounts
from mailserver.cli.address_names import opened
from mailserver.cli.columns import plain, print_table
from mailserver.cli.options import FullHelpGroup
from mailserver.cli.user_mail import reload_users
from mailserver.directory import credentials, field_rules
from mailserver.directory.credentials import AppPassword
from mailserver.directory.model import StoredKeys
from mailserver.ledger.credential_use import CredentialUse
from mailserver.ledger.database import Ledger, LedgerUnavailable
from mailserver.ledger.entry import SeenEntry, credential_of
from mailserver.sasl.scram_keys import derive_under

PROTOCOLS: Final = ("imap", "pop3", "submission")
_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([dwmy])")
_DAYS: Final = {"d": 1, "w": 7, "m": 30, "y": 365}


@click.group("app-password", cls=FullHelpGroup)
def app_password() -> None:
    """Add, list and revoke app passwords: random ones for single devices and programs."""


def _label(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        return field_rules.label(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _expiry(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Seconds since 1970, from a duration or a date."""
    if value is None:
        return None
    if found := _DURATION.fullmatch(value.lower()):
        return int(time.time()) + int(found[1]) * _DAYS[found[2]] * 86400
    try:
        end = int(time.mktime(time.strptime(value, "%Y-%m-%d"))) + 86400
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is neither a date such as 2027-01-31 nor a time such as 90d") from None
    if end <= time.time():
        raise click.BadParameter(f"{value} is over already")
    return end


@app_password.command("add")
@click.argument("name")
@click.option("--label", required=True, callback=_label, help="What it is for: phone, printer.")
@click.option(
    "--protocol", "protocols", multiple=True, type=click.Choice(PROTOCOLS), help="Where it may be used. Repeatable."
)
@click.option("--expires", metavar="WHEN", callback=_expiry, help="A date, the last day, or a time: 90d, 12w, 6m, 1y.")
@click.option("--no-scram", is_flag=True, help="Store no SCRAM keys of it.")
@on_accounts
def add(
    accounts: Accounts, name: str, label: str, protocols: Sequence[str], expires: int | None, *, no_scram: bool
) -> None:
    """Make an app password for NAME and print it. It is shown this once."""
    user = _user(accounts, name)
    password = generate()
    probe = probe_of(password.encode("ascii"))
    assert probe is not None
    with opened(accounts) as database:
        shared = credentials.shared_parameters(database, user)
        scram = {} if no_scram else scram_keys(password, accounts.scram_hashes, shared)
        new = AppPassword(credentials.new_id(), user, label, frozenset(protocols) or None, expires, scram=scram)
        parameters = {hash_name: keys.parameters for hash_name, keys in scram.items()}
        credentials.add_app_password(database, author(), new, probe, parameters)
    click.echo(f"password: {password}")
    until = "" if expires is None else f", until {_day(expires - 1)}"
    click.echo(f"added the app password {plain(label)} of {user} for {_words(new.protocols)}{until}")
    click.echo("it is not shown again; capitals, spaces and hyphens do not count")


def scram_keys(password: str, hashes: Iterable[str], shared: dict[str, str]) -> dict[str, StoredKeys]:
    """SCRAM keys of a new app password, by hash: keys under the salt and rounds of the account; new ones where it has none."""
    octets = password.encode("ascii")
    return {name: StoredKeys.parse(derive_under(name, octets, shared[name]).text()) for name in hashes}


@app_password.command("list")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@on_accounts
def list_app_passwords(accounts: Accounts, name: str, *, as_json: bool) -> None:
    """List the app passwords of NAME, without what would let anybody log in."""
    user = _user(accounts, name)
    with opened(accounts) as database:
        found = credentials.app_passwords(database, user)
    now, (uses, seen) = time.time(), _last_uses(accounts, user, found)
    if as_json:
        click.echo(json.dumps([_data(each, now, uses.get(each.id), seen.get(each.id)) for each in found], indent=2))
        return
    print_table(
        ("LABEL", "FOR", "EXPIRES", "LAST USED", "FROM", "WITH", "MADE", "BY"),
        [
            (
                each.label,
                _words(each.protocols),
                "never" if each.expires is None else "expired" if each.expires <= now else _day(each.expires - 1),
                _last_used(uses.get(each.id), seen.get(each.id)),
                uses[each.id].network if each.id in uses else "",
                _with(seen.get(each.id)),
                _day(each.created),
                each.made_by,
            )
            for each in found
        ],
    )


@app_password.command("revoke")
@click.argument("name")
@click.argument("label")
@on_accounts
def revoke(accounts: Accounts, name: str, label: str) -> None:
    """Revoke the app password LABEL of NAME. The sessions that it let in end; others go on."""
    user = _user(accounts, name)
    with opened(accounts) as database:
        gone = credentials.revoke(database, author(), user, label)
    click.echo(f"revoked the app password {plain(gone.label)} of {user}")
    reload_users(accounts.config)


def _user(accounts: Accounts, name: str) -> str:
    user = accounts.existing(name).name
    if not isinstance(accounts.holding(name).file, DirectoryStore):
        raise click.ClickException(
            f"{user} is in a users file, and app passwords are kept in a directory: `mailserver directory create` makes"
            " one, `mailserver directory import` takes the users"
        )
    return user


def _last_uses(
    accounts: Accounts, user: str, found: Iterable[AppPassword]
) -> tuple[dict[str, CredentialUse], dict[str, SeenEntry]]:
    """The last use of each that the ledger knows, and the last client of each, to the hour."""
    if accounts.config is None:
        return {}, {}
    try:
        ledger = Ledger(accounts.config.server.state_dir)
        uses, seen = ledger.uses(each.id for each in found), ledger.seen(user)
    except LedgerUnavailable as error:
        click.echo(f"when they were used last is not known: {error}", err=True)
        return {}, {}
    clients = {
        credential: each
        for each in sorted(seen, key=lambda each: each.last)
        if (credential := credential_of(each.entry.mechanism))
    }
    return uses, clients


def _last_used(use: CredentialUse | None, seen: SeenEntry | None) -> str:
    if use is not None:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(use.last))
    # A release before this one noted the hour alone.
    return "not known" if seen is None else time.strftime("%Y-%m-%d %H:00", time.localtime(seen.last))


def _with(seen: SeenEntry | None) -> str:
    return "" if seen is None else " ".join(filter(None, [seen.entry.program, f"({seen.entry.protocol})"]))


def _data(each: AppPassword, now: float, use: CredentialUse | None, seen: SeenEntry | None) -> dict[str, object]:
    last = use.last if use is not None else None if seen is None else seen.last
    protocol = seen.entry.protocol if seen is not None else None if use is None else use.protocol
    return {
        "id": each.id,
        "label": each.label,
        "protocols": None if each.protocols is None else sorted(each.protocols),
        "expires": each.expires,
        "expired": each.expires is not None and each.expires <= now,
        "last_used": last,
        "network": None if use is None else use.network,
        "program": None if seen is None else seen.entry.program or None,
        "protocol": protocol,
        "created": each.created,
        "made_by": each.made_by,
        "scram": sorted(each.scram),
    }


def _words(protocols: Iterable[str] | None) -> str:
    return "all protocols" if protocols is None else ", ".join(sorted(protocols))


def _day(at: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))
