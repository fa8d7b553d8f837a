"""`mailserver clients` and `mailserver tls impact`: the ledger of the clients of each account."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import click

from mailserver.cli.columns import print_table
from mailserver.cli.options import config_option, load_or_fail, suggestion
from mailserver.config.model import Config
from mailserver.idn import ascii_name
from mailserver.ledger.database import DAY, Damage, Ledger, LedgerUnavailable
from mailserver.ledger.entry import SeenEntry, mechanism_of
from mailserver.ledger.impact import (
    Affected,
    Change,
    affected,
    close_port,
    drop_mechanism,
    drop_name,
    minimum_version,
)
from mailserver.tls.keypair.pair import covers

_HEAD = (
    "USER",
    "PROGRAM",
    "PROTOCOL",
    "PORT",
    "TLS",
    "VERSION",
    "CIPHER",
    "ALPN",
    "NAME",
    "MECHANISM",
    "FIRST",
    "LAST",
)


@click.command("clients")
@click.argument("user", required=False)
@click.option("--forget", is_flag=True, help="Delete the entries of USER, or all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def clients(configuration: Path, user: str | None, *, forget: bool, as_json: bool) -> None:
    """List the clients of USER or of all users: how each connected and logged in, first and last.

    The command reads the state directory, as its owner; the newest entries appear some seconds late.
    """
    config = load_or_fail(configuration)
    if forget:
        try:
            number = Ledger(config.server.state_dir).forget(user)
        except (LedgerUnavailable, *Damage) as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"{number} entries deleted")
        return
    found = _seen(config, user)
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in found], indent=2))
    else:
        print_table(_HEAD, [_cells(each) for each in found])


@click.command("impact")
@click.option("--min-version", type=click.Choice(["1.2", "1.3"]), help="Oldest TLS version accepted.")
@click.option(
    "--close",
    "ports",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    multiple=True,
    help="Remove the listener at this port.",
)
@click.option("--drop-name", "names", metavar="NAME", multiple=True, help="Stop serving a host name.")
@click.option(
    "--drop-mechanism", "mechanisms", metavar="MECHANISM", multiple=True, help="Stop offering a SASL mechanism."
)
@click.option(
    "--days", type=click.IntRange(1), default=30, show_default=True, help="Consider clients seen in so many days."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def impact(
    configuration: Path,
    min_version: str | None,
    ports: tuple[int, ...],
    names: tuple[str, ...],
    mechanisms: tuple[str, ...],
    *,
    days: int,
    as_json: bool,
) -> None:
    """Show which users a change would shut out, before it is made.

    The result follows from the connections of their clients. `may go on` means that the client last used a connection
    that would still work. Options may be repeated and combined. The exit status is 1 if a user would be shut out, and 2
    for a port, name or mechanism that neither the configuration nor any client has.
    """
    if min_version is None and not (ports or names or mechanisms):
        raise click.UsageError("name a change: --min-version, --close, --drop-name or --drop-mechanism")
    config = load_or_fail(configuration)
    mechanisms = tuple(map(str.upper, mechanisms))
    names = tuple(ascii_name(name.rstrip(".")) or name for name in names)
    seen = _seen(config, None)
    for option, line in _unknown(config, seen, ports, names, mechanisms):
        raise click.BadParameter(line, param_hint=option)
    changes = _changes(config, min_version, ports, names, mechanisms)
    since = time.time() - days * DAY
    recent = [each for each in seen if each.last >= since]
    if not recent:
        why = "" if config.ledger.enabled else ", as [ledger] is off"
        click.echo(f"nothing is known: no client was seen in {days} days{why}", err=as_json)
    found = affected(recent, lambda entry: any(change(entry) for change in changes))
    if as_json:
        click.echo(json.dumps([_affected_as_json(each) for each in found], indent=2))
    elif recent:
        _show(found, recent, days)
    if any(each.breaks for each in found):
        raise SystemExit(1)


def _changes(
    config: Config, version: str | None, ports: Iterable[int], names: tuple[str, ...], mechanisms: Iterable[str]
) -> list[Change]:
    changes = [] if version is None else [minimum_version(version)]
    staying = [host for host in _hosts(config) if host not in names]
    # A single name below a wildcard that stays can be dropped, such as one that leaves DNS.
    changes += [drop_name(name, staying if name in _hosts(config) else ()) for name in names]
    return [*changes, *map(close_port, ports), *map(drop_mechanism, mechanisms)]


def _unknown(
    config: Config, seen: list[SeenEntry], ports: Iterable[int], names: Iterable[str], mechanisms: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yield option and message for values that nobody uses: they are probably mistyped."""
    entries = [each.entry for each in seen]
    own_ports = {str(each.tcp_port) for each in config.listeners if each.socket is None}
    for port in map(str, ports):
        if port not in own_ports | {str(each.port) for each in entries}:
            yield "--close", f"no listener has port {port}{suggestion(port, sorted(own_ports, key=int))}"
    for name in names:
        hosts = _hosts(config)
        if not covers(hosts, name) and not any(drop_name(name)(each) for each in entries):
            yield "--drop-name", f"no domain has the host {name}{suggestion(name, hosts)}"
    # The ledger has these IMAP and POP3 commands beside the mechanisms.
    own_mechanisms = [*dict.fromkeys([*config.auth.mechanisms, "LOGIN", "USER"])]
    for mechanism in mechanisms:
        if mechanism not in own_mechanisms and not any(mechanism_of(each) == mechanism for each in entries):
            words = f"no client can log in by {mechanism}{suggestion(mechanism, own_mechanisms)}"
            yield "--drop-mechanism", words


def _hosts(config: Config) -> list[str]:
    return sorted({host for domain in config.domains_and_sites for host in domain.hosts})


def _seen(config: Config, user: str | None) -> list[SeenEntry]:
    try:
        return Ledger(config.server.state_dir).seen(user)
    except (LedgerUnavailable, *Damage) as error:
        raise click.ClickException(str(error)) from error


def _show(found: list[Affected], recent: list[SeenEntry], days: int) -> None:
    print_table(
        ("RESULT", *_HEAD),
        [("shut out" if each.breaks else "may go on", *_cells(each.seen)) for each in found],
    )
    accounts = {each.entry.account for each in recent}
    out = {each.seen.entry.account for each in found if each.breaks}
    click.echo()
    click.echo(f"{len(out)} of {len(accounts)} users seen in {days} days have a client that would be shut out")


def _cells(seen: SeenEntry) -> tuple[str, ...]:
    entry = seen.entry
    return (
        entry.account,
        entry.program,
        entry.protocol,
        str(entry.port or ""),
        entry.tls,
        entry.version,
        entry.cipher,
        entry.alpn,
        entry.server_name,
        entry.mechanism,
        _date(seen.first),
        _date(seen.last),
    )


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _as_json(seen: SeenEntry) -> dict[str, Any]:
    return {**attrs.asdict(seen.entry), "first": seen.first, "last": seen.last}


def _affected_as_json(each: Affected) -> dict[str, Any]:
    return {**_as_json(each.seen), "breaks": each.breaks, "other_way": each.other_way}
