"""`mailserver explain` and `mailserver last`: why a login was refused, and who logged in last."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.cli.account_stores import DirectoryStore, stores_of
from mailserver.cli.columns import plain, print_table
from mailserver.cli.options import config_option, load_or_fail
from mailserver.config.model import Config
from mailserver.directory import changing, credentials, reading
from mailserver.explain import find
from mailserver.explain.log import DIRECTORY
from mailserver.explain.record import Record
from mailserver.explain.refs import read_ref
from mailserver.explain.story import Facts, moment, rule_of, story
from mailserver.explain.trace import Rule
from mailserver.ledger.database import Damage, Ledger, LedgerUnavailable
from mailserver.ledger.entry import mechanism_of

SHOWN = 20
"""Refusals or logins in a list, where --number does not say."""
_MOST_PROGRAMS = 2
"""Programs that may have made a login; with more, none is named."""
_MAX_NAMES = 100_000
"""Users that are compared with an unknown name."""
_REVOKED_WITHIN = 30 * 86_400
"""Seconds before a refusal in which a revoked app password is worth naming."""

_number = click.option(
    "--number", type=click.IntRange(1, 100_000), default=SHOWN, show_default=True, help="List so many, the newest."
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.command("explain")
@click.argument("ref", required=False, metavar="[ID]")
@click.option("--user", "name", metavar="NAME", help="List the last refusals of this user or typed name.")
@click.option("--peer", metavar="ADDRESS", help="List the last refusals of this client.")
@_number
@_json
@config_option
def explain(
    configuration: Path, ref: str | None, name: str | None, peer: str | None, number: int, *, as_json: bool
) -> None:
    """Explain the refused login with that ID, as in `(ref 7KQF-2M9X)`; without ID, list the last refusals.

    Case, spaces and hyphens of the ID do not count. The server need not run. Only root and the service's user may read the
    records.
    """
    config = load_or_fail(configuration)
    records = _records(config, logins=False)
    if ref is None:
        if name is not None:
            records = find.of_user(records, name)
        if peer is not None:
            records = find.of_peer(records, peer)
        _list(records[-number:], as_json=as_json)
        return
    wanted = read_ref(ref)
    if wanted is None:
        raise click.ClickException(f"{plain(ref[:40])!r} is no id: it has eight letters and digits, as in 7KQF-2M9X")
    record = find.by_ref(records, wanted)
    if record is None:
        raise click.ClickException(
            f"no refusal {wanted} is known: of each worker the newest 4096 of the last {config.explain.keep_days} days are kept in"
            f" {config.server.runtime_dir / DIRECTORY}, which may be emptied when the machine starts"
        )
    lines = story(record, _facts(config, record))
    if as_json:
        click.echo(json.dumps({**_as_json(record), "story": lines}, indent=2))
    else:
        for line in lines:
            click.echo(plain(line))


@click.command("last")
@click.argument("name", metavar="USER")
@_number
@_json
@config_option
def last(configuration: Path, name: str, number: int, *, as_json: bool) -> None:
    """List the last logins and refusals of USER: when, how, from where, and with what result.

    A program that logs in again and again is listed once in ten minutes by each worker. The server need not run.
    """
    config = load_or_fail(configuration)
    try:
        name = normalise(name)
    except BadName as error:
        raise click.ClickException(str(error)) from error
    local, _, domain = name.partition("@")
    names = {name}
    if not domain and config.auth.default_domain:
        names.add(f"{name}@{config.auth.default_domain}")
    elif domain == config.auth.default_domain:
        # In a users file the user may have its bare name.
        names.add(local)
    records = find.of_user(_records(config, logins=True), *names)
    _list(records[-number:], _programs(config, names), as_json=as_json)


def _programs(config: Config, names: set[str]) -> dict[tuple[str, str], str]:
    """The programs of these accounts that the ledger knows, by protocol and mechanism; none where it cannot be read."""
    programs: dict[tuple[str, str], set[str]] = {}
    try:
        seen = [each.entry for name in names for each in Ledger(config.server.state_dir).seen(name)]
    except (LedgerUnavailable, *Damage, OSError):
        return {}
    for entry in seen:
        if entry.program:
            key = (entry.protocol.removesuffix("s"), mechanism_of(entry).upper())
            programs.setdefault(key, set()).add(entry.program)
    return {key: " or ".join(sorted(found)) for key, found in programs.items() if len(found) <= _MOST_PROGRAMS}


def _records(config: Config, *, logins: bool) -> list[Record]:
    try:
        found = find.read_records(config.server.runtime_dir / DIRECTORY, config.explain.keep_days, logins=logins)
    except PermissionError as error:
        raise click.ClickException(
            f"only root and the service's user may read the records of logins: {error}"
        ) from error
    for fault in found.faults:
        click.echo(f"not read: {plain(fault)}", err=True)
    return found.records


def _list(records: Sequence[Record], programs: Mapping[tuple[str, str], str] | None = None, *, as_json: bool) -> None:
    """Print them. `programs`: by protocol and mechanism; None: without a column of programs."""
    known = programs or {}
    if as_json:
        data = [_as_json(each) for each in records]
        if programs is not None:
            data = [{**each, "program": known.get((each["protocol"], each["method"])) or None} for each in data]
        click.echo(json.dumps(data, indent=2))
        return
    more = ("PROGRAM",) if programs is not None else ()
    print_table(
        ("TIME", "RESULT", "REF", "USER", "PROTOCOL", "METHOD", "FROM", *more),
        [
            (
                moment(each.at),
                rule_of(each).value if each.refused else "logged in",
                each.ref,
                _account(each),
                each.protocol,
                each.method,
                each.peer,
                *(known.get((each.protocol, each.method), "") for _ in more),
            )
            for each in records
        ],
    )


def _account(record: Record) -> str:
    """The account, with its delegate if that logged in; what was typed where there is none."""
    return f"{record.user} by {record.delegate}" if record.delegate else record.user or record.typed


def _as_json(record: Record) -> dict[str, Any]:
    data = attrs.asdict(record)
    return {"time": moment(record.at), "result": "refused" if record.refused else "logged in", **data}


def _facts(config: Config, record: Record) -> Facts:
    """What the configured accounts say today; nothing where they cannot be read."""
    rule = rule_of(record)
    if rule not in {Rule.WRONG, Rule.UNKNOWN_USER}:
        return Facts()
    changed, near, expired, revoked = "", [], [], []
    try:
        for store in stores_of(config):
            if rule is Rule.WRONG and isinstance(store, DirectoryStore):
                changed = changed or _password_changed(store, record.owner)
                expired += _expired(store, record)
                revoked += _revoked(store, record)
            elif rule is Rule.UNKNOWN_USER and not record.typed.startswith("("):
                names = [each.name for each, _ in zip(store.entries(), range(_MAX_NAMES), strict=False)]
                near += difflib.get_close_matches(record.typed.lower(), names, n=3, cutoff=0.75)
    except (click.ClickException, OSError) as error:
        click.echo(f"the accounts cannot be read: {error}", err=True)
    return Facts(changed, near[:3], expired, revoked[-3:])


def _expired(store: DirectoryStore, record: Record) -> list[str]:
    """The labels of the user's app passwords that had expired by then."""
    with store.opened() as database:
        found = credentials.app_passwords(database, record.owner)
    return [each.label for each in found if each.expires is not None and each.expires <= record.at]


def _revoked(store: DirectoryStore, record: Record) -> list[str]:
    """The labels of the user's app passwords that were revoked shortly before it, as far as changes are kept."""
    with store.opened() as database:
        return [
            str(change.facts.get("label", ""))
            for change in reading.changes(database, 0)
            if change.account == record.owner
            and change.what == credentials.REVOKED
            and record.at - _REVOKED_WITHIN <= change.at <= record.at
        ]


def _password_changed(store: DirectoryStore, user: str) -> str:
    """The day and time of the last change of a user's password, as far as changes are kept."""
    at = 0
    with store.opened() as database:
        for change in reading.changes(database, 0):
            if change.account == user and change.what in {changing.ADDED, changing.PASSWORD}:
                at = max(at, change.at)
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at)) if at else ""
