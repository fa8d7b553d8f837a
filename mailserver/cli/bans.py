"""`mailserver bans`: addresses that are refused, as they have guessed passwords or the administrator has banned them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, Final

import click

from mailserver.cli.columns import duration, print_table
from mailserver.cli.control import Answer, ask_or_fail
from mailserver.cli.options import FullHelpGroup, config_option
from mailserver.cli.sessions import finish

_HEAD: Final = ("CLIENT", "SINCE", "UNTIL", "LEFT", "TIMES", "BY", "REASON")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group("bans", cls=FullHelpGroup)
def bans() -> None:
    """List, add and remove bans of addresses; the running server has them."""


@bans.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def list_(configuration: Path, *, as_json: bool) -> None:
    """List the banned clients, the latest first, with the reason and the end of each ban."""
    answer = ask_or_fail(configuration, "bans")
    rows: list[dict[str, Any]] = answer.data if isinstance(answer.data, list) else []
    _show(rows, rows, as_json=as_json)
    finish(answer)


@bans.command("add")
@click.argument("address")
@click.option("--reason", default="", help="The reason, for `bans list` and the log.")
@click.option(
    "--for", "time_", metavar="TIME", help="30m, 12h or 7d; without it as long as the server would ban it next."
)
@click.option("--force", is_flag=True, help="Also where users have logged in from its network.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@config_option
def add(configuration: Path, address: str, reason: str, time_: str | None, *, force: bool, as_json: bool) -> None:
    """Ban ADDRESS, of IPv6 its /64, at once in all workers. Sessions that have logged in go on: see `mailserver kick`."""
    arguments = {"client": address, "reason": reason}
    if time_ is not None:
        arguments["seconds"] = str(_seconds(time_))
    if force:
        arguments["force"] = "yes"
    _finish_one(ask_or_fail(configuration, "bans-add", **arguments), as_json=as_json)


@bans.command("remove")
@click.argument("address")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@config_option
def remove(configuration: Path, address: str, *, as_json: bool) -> None:
    """Lift the ban of ADDRESS and forget its guesses. The status is 1 if there was none."""
    answer = ask_or_fail(configuration, "bans-remove", client=address)
    if answer.ok and not as_json:
        click.echo("lifted this ban, as it was:")
    _finish_one(answer, as_json=as_json)


def _finish_one(answer: Answer, *, as_json: bool) -> None:
    if answer.ok:
        _show([answer.data], answer.data, as_json=as_json)
    finish(answer)


def _show(rows: list[dict[str, Any]], data: object, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(data, indent=2))
    else:
        print_table(_HEAD, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["client"],
        _when(row["since"]),
        _when(row["until"]),
        duration(row["seconds_left"]),
        str(row["times"]),
        row["by"],
        row["reason"],
    )


def _seconds(text: str) -> int:
    """Raises: click.BadParameter."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} is no time: give a number and a unit, such as 30m, 12h or 7d", param_hint="--for"
        )
    return int(found[1]) * _UNITS[found[2]]


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
