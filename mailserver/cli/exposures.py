"""`mailserver exposures`: users whose right password came in clear text."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from mailserver.cli.columns import print_table
from mailserver.cli.control import ask_or_fail
from mailserver.cli.options import FullHelpGroup, config_option
from mailserver.cli.sessions import finish

_HEAD = ("USER", "FIRST", "LAST", "TIMES", "PROTOCOL", "METHOD", "ADDRESS")


@click.group("exposures", cls=FullHelpGroup)
def exposures() -> None:
    """List and clear users whose password was exposed in clear text; they must change it."""


@exposures.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def list_(configuration: Path, *, as_json: bool) -> None:
    """List the users, the latest first, with the time, protocol, method and address of the last exposure."""
    answer = ask_or_fail(configuration, "exposures")
    rows: list[dict[str, Any]] = answer.data if isinstance(answer.data, list) else []
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        print_table(_HEAD, [_cells(row) for row in rows])
    finish(answer)


@exposures.command("clear")
@click.argument("user", required=False)
@click.option("--all", "everybody", is_flag=True, help="All users.")
@config_option
def clear(configuration: Path, user: str | None, *, everybody: bool) -> None:
    """Clear the mark of USER after a change of the password. The status is 1 if there was none."""
    if everybody == bool(user):
        raise click.UsageError("give a USER, or --all")
    answer = ask_or_fail(configuration, "exposures-clear", user=(user or "").lower())
    finish(answer)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["user"],
        _when(row["first"]),
        _when(row["last"]),
        str(row["count"]),
        row["protocol"],
        row["method"],
        row["peer"] or "local",
    )


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
