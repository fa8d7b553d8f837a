"""`mailserver directory check`: damage of the file, and accounts and addresses that do not do what they seem to."""

from __future__ import annotations

import json
from collections import Counter
from typing import Final

import click

from mailserver.cli.account_stores import DirectoryStore
from mailserver.cli.columns import plain
from mailserver.cli.directory import on_directory, print_unusable, unusable_passwords
from mailserver.cli.directory_document import surroundings
from mailserver.config.model import Config
from mailserver.directory import applying, migrations, plan
from mailserver.directory.address_check import Sort, find_faults
from mailserver.directory.document import Document

_MOST: Final = 50
"""Findings that are printed without --json."""


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@on_directory
def check(store: DirectoryStore, config: Config | None, *, as_json: bool) -> None:
    """Read all of the directory and report damage, accounts that nobody can log in to, and addresses that lead nowhere.

    The exit status is 1 for damage and for loops, through which mail is refused.
    """
    with store.opened() as database:
        problems = database.problems()
        version = migrations.version_of(database)
        found = applying.load(database) if not problems else Document()
    if problems:
        raise click.ClickException("\n".join([f"{store.path} is damaged:", *problems]))
    empty = sum(user.password is None or not user.password.secret for user in found.users.values())
    unusable = list(
        unusable_passwords(
            (name, user.password.secret) for name, user in found.users.items() if user.password is not None
        )
    )
    findings = list(find_faults(plan.names_of(found, surroundings(store, config))))
    loops = any(each.sort is Sort.LOOP for each in findings)
    if as_json:
        data = {
            "path": str(store.path),
            "version": version,
            "accounts": len(found.users),
            "without_password": empty,
            "unusable_passwords": [{"account": name, "reason": reason} for name, reason in unusable],
            "addresses": dict(Counter(each.kind.value for each in found.addresses.values())),
            "findings": [{"address": each.address, "sort": each.sort.value, "finding": each.text} for each in findings],
        }
        click.echo(json.dumps(data, indent=2))
        raise SystemExit(1 if loops else 0)
    for each in findings[:_MOST]:
        click.echo(plain(each.text), err=True)
    if len(findings) > _MOST:
        click.echo(f"and {len(findings) - _MOST} more; --json prints all", err=True)
    if empty:
        click.echo(f"{empty} accounts have no password: `mailserver user password NAME` sets one", err=True)
    print_unusable(unusable)
    newer = (
        f"; `mailserver directory upgrade` makes it version {migrations.NEWEST}" if version < migrations.NEWEST else ""
    )
    addresses = f", {len(found.addresses)} addresses" if found.addresses else ""
    click.echo(f"{store.path}: {len(found.users)} accounts{addresses}, version {version}, no damage{newer}")
    if loops:
        raise SystemExit(1)
