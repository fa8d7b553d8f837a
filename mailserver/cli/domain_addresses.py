"""`mailserver domain list|show|alias|catch-all|detail|disable|enable|remove`: what a directory has of domains."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from mailserver.cli.account_stores import author
from mailserver.cli.accounts import Accounts, on_accounts
from mailserver.cli.address_names import absent_domains, domain_name, opened, targets_of
from mailserver.cli.columns import print_table
from mailserver.directory import address_changes, addresses, field_rules
from mailserver.directory.model import AddressKind, StoredAddress, StoredDomain

_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
_DOMAIN = click.argument("name", metavar="DOMAIN")


@click.command("list")
@_JSON
@on_accounts
def list_domains(accounts: Accounts, *, as_json: bool) -> None:
    """List the domains of the configuration and of the directory, with what a directory says about them."""
    rows = _rows(accounts)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(
        ("DOMAIN", "STATE", "STANDS FOR", "DETAIL", "CATCH-ALL", "KEPT IN"),
        [
            (
                str(row["domain"]),
                "enabled" if row["enabled"] else "disabled",
                str(row["alias_of"] or "-"),
                "configuration" if row["detail"] is None else str(row["detail"]) or "none",
                ", ".join(row["catch_all"]) or "-",
                _kept_in(row),
            )
            for row in rows
        ],
    )


@click.command("show")
@_DOMAIN
@_JSON
@on_accounts
def show(accounts: Accounts, name: str, *, as_json: bool) -> None:
    """Show one domain: its state, the domain that it stands for, the separator of details, its catch-all."""
    with opened(accounts) as database:
        domain = domain_name(accounts, database, name)
    [row] = [each for each in _rows(accounts) if each["domain"] == domain]
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    click.echo(f"{domain}: {'enabled' if row['enabled'] else 'disabled'}, kept in the {_kept_in(row)}")
    if row["alias_of"]:
        click.echo(f"stands for: {row['alias_of']}")
    if row["detail"] is not None:
        click.echo(f"separator of details: {row['detail'] or 'none'}")
    click.echo(f"catch-all: {', '.join(row['catch_all']) or 'none'}")


@click.command("alias")
@_DOMAIN
@click.argument("of", required=False, metavar="[OTHER]")
@click.option("--remove", is_flag=True, help="Let DOMAIN stand for itself again.")
@on_accounts
def alias(accounts: Accounts, name: str, of: str | None, *, remove: bool) -> None:
    """Let DOMAIN stand for OTHER: each address of DOMAIN is the same one of OTHER. DOMAIN is added if it is new."""
    if remove is (of is not None):
        raise click.UsageError("give the domain that it stands for, or --remove")
    with opened(accounts) as database:
        domain = domain_name(accounts, database, name, new=of is not None)
        if of is None:
            if addresses.find_stored_domain(database, domain) is not None:
                address_changes.change_domain(database, author(), domain, alias_of=None)
            click.echo(f"{domain} stands for itself")
            return
        meant = domain_name(accounts, database, of)
        absent = absent_domains(accounts, meant, domain)
        address_changes.change_domain(database, author(), domain, absent=absent, alias_of=meant)
    click.echo(f"{domain} stands for {meant}: mail to anybody@{domain} goes to anybody@{meant}")


@click.command("catch-all")
@_DOMAIN
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--remove", is_flag=True, help="Refuse mail to unknown addresses again.")
@on_accounts
def catch_all(accounts: Accounts, name: str, targets: Sequence[str], *, remove: bool) -> None:
    """Have mail to all addresses of DOMAIN that do not exist go to each TARGET, instead of refusing it.

    It never takes the mail of a user, alias or group, or of their details.
    """
    if remove is bool(targets):
        raise click.UsageError("give at least one target, or --remove")
    with opened(accounts) as database:
        domain = domain_name(accounts, database, name)
        address = f"@{domain}"
        present = addresses.find_stored(database, address)
        if remove:
            if present is None:
                raise click.ClickException(f"{domain} has no catch-all")
            address_changes.remove_address(database, author(), address)
            click.echo(f"mail to unknown addresses of {domain} is refused")
            return
        found = targets_of(accounts, database, address, targets, may_send=False, force=False)
        new = StoredAddress(address, AddressKind.ALIAS, tuple(found))
        address_changes.replace_address(database, author(), new)
    click.echo(f"mail to unknown addresses of {domain} goes to {', '.join(each.name for each in found)}")


@click.command("detail")
@_DOMAIN
@click.argument("separator", required=False)
@click.option("--none", "no_details", is_flag=True, help="Addresses of this domain have no details.")
@on_accounts
def detail(accounts: Accounts, name: str, separator: str | None, *, no_details: bool) -> None:
    """Set the separator of details in addresses of DOMAIN: with "+", user+detail is user."""
    if no_details is (separator is not None):
        raise click.UsageError("give the separator, or --none")
    if separator is not None and separator not in {*field_rules.DETAILS}:
        raise click.BadParameter(f"{separator!r} is not one of {' '.join(field_rules.DETAILS)}", param_hint="SEPARATOR")
    with opened(accounts) as database:
        domain = domain_name(accounts, database, name)
        absent = absent_domains(accounts, domain)
        address_changes.change_domain(database, author(), domain, absent=absent, detail=separator or "")
    click.echo(f"{domain}: " + (f"details follow {separator!r}" if separator else "addresses have no details"))


@click.command("disable")
@_DOMAIN
@on_accounts
def disable(accounts: Accounts, name: str) -> None:
    """Refuse mail to DOMAIN, and mail from it, until it is enabled. Its users can log in."""
    with opened(accounts) as database:
        domain = domain_name(accounts, database, name)
        absent = absent_domains(accounts, domain)
        address_changes.change_domain(database, author(), domain, absent=absent, enabled=False)
    click.echo(f"disabled {domain}: mail to it and from it is refused")


@click.command("enable")
@_DOMAIN
@on_accounts
def enable(accounts: Accounts, name: str) -> None:
    """Accept mail to DOMAIN again."""
    with opened(accounts) as database:
        domain = domain_name(accounts, database, name)
        absent = absent_domains(accounts, domain)
        address_changes.change_domain(database, author(), domain, absent=absent, enabled=True)
    click.echo(f"enabled {domain}")


@click.command("remove")
@_DOMAIN
@on_accounts
def remove(accounts: Accounts, name: str) -> None:
    """Remove DOMAIN from the directory. Its addresses and users stay there.

    A [[domain]] of the configuration stays, without what the directory said about it.
    """
    with opened(accounts) as database:
        domain = domain_name(accounts, database, name)
        address_changes.remove_domain(database, author(), domain)
    configured = domain in (accounts.domains or ())
    click.echo(f"removed {domain} from the directory" + ("; its [[domain]] stays" if configured else ""))


def _rows(accounts: Accounts) -> list[dict[str, Any]]:
    stored: dict[str, StoredDomain] = {}
    catch_alls: dict[str, list[str]] = {}
    if accounts.directory is not None:
        with opened(accounts) as database:
            stored = {domain.name: domain for domain in addresses.domains(database)}
            for name in {*stored, *(accounts.domains or ())}:
                found = addresses.find_stored(database, f"@{name}")
                catch_alls[name] = [] if found is None or not found.enabled else [each.name for each in found.targets]
    return [
        _row(name, stored.get(name), catch_alls.get(name, []), accounts.domains or ())
        for name in sorted({*stored, *(accounts.domains or ())})
    ]


def _row(name: str, stored: StoredDomain | None, catch_all: list[str], configured: Iterable[str]) -> dict[str, Any]:
    return {
        "domain": name,
        "enabled": stored is None or stored.enabled,
        "alias_of": None if stored is None else stored.alias_of,
        "detail": None if stored is None else stored.detail,
        "catch_all": catch_all,
        "configured": name in configured,
        "in_directory": stored is not None,
    }


def _kept_in(row: dict[str, Any]) -> str:
    places = [words for key, words in (("configured", "configuration"), ("in_directory", "directory")) if row[key]]
    return " and ".join(places)
