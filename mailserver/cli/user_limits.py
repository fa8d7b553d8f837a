"""`mailserver user show` and `mailserver user limit`: what one account has and may. Limits can be changed in a directory."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Sequence
from typing import Any

import click

from mailserver.auth.limits import LOCAL_NETWORK
from mailserver.auth.schemes.passwd import PasswdEntry
from mailserver.auth.schemes.quota_fields import quota_of
from mailserver.cli.account_stores import DirectoryStore, author
from mailserver.cli.accounts import Accounts, on_accounts
from mailserver.cli.address_names import absent_domains, domain_name, opened
from mailserver.cli.app_passwords import PROTOCOLS
from mailserver.cli.columns import plain
from mailserver.cli.user_mail import reload_users
from mailserver.config.values import parse_size
from mailserver.directory import address_changes, addresses, changing, credentials, reading
from mailserver.directory.model import Account, AccountLimits
from mailserver.types import UNLIMITED

_NONE = "none"
"""Removes a limit of the account: then the configuration's holds."""


def _octets(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    """A limit in octets, or _NONE; None for no option."""
    if value is None or value.lower() == _NONE:
        return value and _NONE
    number = parse_size(value)
    if number is None:
        raise click.BadParameter(f'{value!r} is not octets, such as 500M or 10G, "unlimited" or "none"')
    return min(number, UNLIMITED) or UNLIMITED


def _number(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | str | None:
    """A limit, or _NONE; None for no option."""
    if value is None or value.lower() == _NONE:
        return value and _NONE
    if value.lower() == "unlimited":
        return UNLIMITED
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise click.BadParameter(f'{value!r} is not a number, "unlimited" or "none"')
    return int(value) or UNLIMITED


def _networks(_ctx: click.Context, _param: click.Parameter, value: Sequence[str]) -> tuple[str, ...] | None:
    """Check the networks. () stands for --network none, None for no option."""
    if not value:
        return None
    if [each.lower() for each in value] == [_NONE]:
        return ()
    for each in value:
        if each == LOCAL_NETWORK:
            continue
        try:
            ipaddress.ip_network(each, strict=False)
        except ValueError as error:
            raise click.BadParameter(f'{error}; "local" stands for Unix sockets, "none" removes the limit') from error
    return tuple(value)


def _protocols(_ctx: click.Context, _param: click.Parameter, value: Sequence[str]) -> tuple[str, ...] | None:
    """Check the protocols. () stands for none as the option, None for no option."""
    if not value:
        return None
    if [each.lower() for each in value] == [_NONE]:
        return ()
    for each in value:
        if each not in PROTOCOLS:
            raise click.BadParameter(f'{each!r} is not one of {", ".join(PROTOCOLS)}; "none" removes the limit')
    return tuple(sorted(set(value)))


_NETWORKS = click.option(
    "--network", "networks", multiple=True, callback=_networks, help='A network to log in from, or "local". Repeatable.'
)
_PROTOCOLS = click.option(
    "--protocol",
    "protocols",
    multiple=True,
    callback=_protocols,
    metavar="|".join((*PROTOCOLS, _NONE)),
    help="A protocol to log in by. Repeatable.",
)


@click.command("limit")
@click.argument("name")
@_NETWORKS
@_PROTOCOLS
@click.option(
    "--password-protocol",
    "password_protocols",
    metavar="|".join((*PROTOCOLS, _NONE)),
    multiple=True,
    callback=_protocols,
    help="A protocol that the main password works for; others need an app password. Repeatable.",
)
@click.option("--apps-only", is_flag=True, help="The main password works for no protocol: each needs an app password.")
@click.option("--storage", metavar="OCTETS", callback=_octets, help="Octets of mail, with a unit of 1024 or none: 10G.")
@click.option("--messages", metavar="NUMBER", callback=_number, help="Messages.")
@click.option("--mailboxes", metavar="NUMBER", callback=_number, help="Mailboxes.")
@on_accounts
def limit(
    accounts: Accounts,
    name: str,
    networks: tuple[str, ...] | None,
    protocols: tuple[str, ...] | None,
    password_protocols: tuple[str, ...] | None,
    *,
    apps_only: bool,
    **limits: int | str | None,
) -> None:
    """Limit the logins and the mail of NAME. "none" removes a limit, so that its domain's or the configuration's holds;
    "unlimited" lifts it. To bar the main password, use --apps-only.

    Sessions end that would not be let in any more. Limits of mail hold for the next delivery or command.
    """
    entry = accounts.existing(name)
    store = accounts.holding(name).file
    if not isinstance(store, DirectoryStore):
        raise click.ClickException(
            f"{entry.name} is in a users file: there allow_nets and userdb_quota_... of its line are the limits"
        )
    given: dict[str, Any] = {
        key: None if value == _NONE else value for key, value in limits.items() if value is not None
    }
    if networks is not None:
        given["networks"] = networks or None
    if protocols is not None:
        given["protocols"] = protocols or None
    if apps_only and password_protocols:
        raise click.UsageError("--apps-only and --password-protocol exclude each other")
    by_password = frozenset() if apps_only else frozenset(password_protocols or ()) or None
    changes_password = apps_only or password_protocols is not None
    if not given and not changes_password:
        raise click.UsageError("give at least one limit; `mailserver user show` shows the present ones")
    with store.opened() as database:
        main = {"password_protocols": by_password} if changes_password else {}
        changed = changing.change_limits(database, author(), entry.name, **given, **main)
    click.echo(f"changed the limits of {entry.name}")
    if changes_password or given.keys() & {"networks", "protocols"}:
        _say_logins(changed)
    reload_users(accounts.config)


@click.command("limit")
@click.argument("name", metavar="DOMAIN")
@_NETWORKS
@_PROTOCOLS
@on_accounts
def limit_domain(
    accounts: Accounts, name: str, networks: tuple[str, ...] | None, protocols: tuple[str, ...] | None
) -> None:
    """Limit the logins of all users of DOMAIN that have no limits of their own. "none" removes a limit.

    Sessions end that would not be let in any more.
    """
    given = {key: value for key, value in (("networks", networks), ("protocols", protocols)) if value is not None}
    if not given:
        raise click.UsageError("give --network or --protocol")
    with opened(accounts) as database:
        domain = domain_name(accounts, database, name)
        changed: dict[str, Any] = {key: value or None for key, value in given.items()}
        absent = absent_domains(accounts, domain)
        after = address_changes.change_domain(database, author(), domain, absent=absent, changed_limits=changed)
        limits = AccountLimits.parse(after.limits)
    click.echo(f"changed the limits of {domain}")
    click.echo(f"its users log in {_from_and_by(limits, 'each protocol')}, unless they have limits of their own")
    reload_users(accounts.config)


def _say_logins(account: Account) -> None:
    """What holds now, as "none" for a limit may be taken for its contrary."""
    click.echo(f"it may log in {_from_and_by(account.limits, 'each protocol, or those of its domain')}")
    main = account.password.protocols
    if main is None:
        click.echo("its main password works for all of these")
    elif main:
        click.echo(f"its main password works for {', '.join(sorted(main))}; others need an app password")
    else:
        click.echo("its main password works for none of these: each needs an app password")


def _from_and_by(limits: AccountLimits, every: str) -> str:
    networks = "" if limits.networks is None else f" from {', '.join(limits.networks)}"
    return f"by {every if limits.protocols is None else ', '.join(limits.protocols)}{networks}"


@click.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@on_accounts
def show(accounts: Accounts, name: str, *, as_json: bool) -> None:
    """Show the account NAME: its state, addresses, limits, and where the account itself is kept."""
    entry, store = accounts.existing(name), accounts.holding(name).file
    data = _data(entry, str(store.path))
    if isinstance(store, DirectoryStore):
        with store.opened() as database:
            account = reading.find_account(database, entry.name)
            if account is not None:
                main, own = account.password.protocols, account.limits.protocols
                data |= {
                    "full_name": account.full_name or None,
                    "created": account.created,
                    "protocols": None if own is None else list(own),
                    "password_protocols": None if main is None else sorted(main),
                    "app_passwords": len(credentials.app_passwords(database, entry.name)),
                    "aliases": [
                        f"{found} ({kind.value})" for found, kind in addresses.addresses_of(database, entry.name)
                    ],
                }
    if as_json:
        shown = {key: "unlimited" if value == UNLIMITED else value for key, value in data.items()}
        click.echo(json.dumps(shown, indent=2))
        return
    for key, value in data.items():
        if value is not None:
            click.echo(f"{key.replace('_', ' ') + ':':20}{plain(_words(key, value))}")


def _data(entry: PasswdEntry, path: str) -> dict[str, object]:
    quota = quota_of(entry)
    return {
        "user": entry.name,
        "enabled": not entry.disabled,
        "home": entry.home or None,
        "addresses": sorted(entry.addresses),
        "networks": None if entry.networks is None else list(entry.networks),
        "storage_limit": quota.storage,
        "messages_limit": quota.messages,
        "mailboxes_limit": quota.mailboxes,
        "kept_in": path,
    }


def _words(key: str, value: object) -> str:
    match value:
        case [] if key == "password_protocols":
            return "none: it needs app passwords"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value)) or "none"
        case int() if key == "created":
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        case int() if value == UNLIMITED:
            return "unlimited"
        case _:
            return str(value)
