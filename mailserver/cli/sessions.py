"""`mailserver who` and `mailserver kick`: the sessions of the running server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from mailserver.cli.columns import duration, octets, plain, print_table
from mailserver.cli.control import Answer, ask_or_fail
from mailserver.cli.options import config_option

_HEAD = ("SESSION", "USER", "PROTOCOL", "ADDRESS", "TLS", "SINCE", "MAILBOX", "IN", "OUT", "WORKER")


@click.command("who")
@click.option("--user", help="Only sessions of this user.")
@click.option("--protocol", help="Only this protocol; imap means imaps, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def who(configuration: Path, user: str | None, protocol: str | None, *, as_json: bool) -> None:
    """List the connections of the running server, the oldest first."""
    arguments = {name: value for name, value in (("user", user), ("protocol", protocol)) if value is not None}
    answer = ask_or_fail(configuration, "who", **arguments)
    rows: list[dict[str, Any]] = answer.data if isinstance(answer.data, list) else []
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        now = time.time()
        print_table(_HEAD, [_cells(row, now) for row in rows])
    finish(answer)


@click.command("kick")
@click.argument("target", metavar="USER|SESSION-ID")
@click.option("--reason", help="Message to the client; ASCII.")
@config_option
def kick(configuration: Path, target: str, reason: str | None) -> None:
    """End the sessions of USER, or one session, with the protocol's final response. A running command may finish within a second.

    Prints each ended session: its id, user, protocol and address.

    The status is 1 if there was no such session.
    """
    answer = ask_or_fail(configuration, "kick", target=target, **({"reason": reason} if reason is not None else {}))
    kicked: list[dict[str, Any]] = answer.data if isinstance(answer.data, list) else []
    for row in kicked:
        click.echo(plain(f"{row['session']} {_user(row) or '(not logged in)'} {row['protocol']} {_address(row)}"))
    finish(answer)
    if not kicked:
        raise click.ClickException(f"no session has that user or id: {target}")


def finish(answer: Answer) -> None:
    """Print the lines of an answer on standard error, and exit with 1 if it failed."""
    for line in answer.lines:
        click.echo(plain(line), err=True)
    if not answer.ok:
        raise SystemExit(1)


def _cells(row: dict[str, Any], now: float) -> list[str]:
    return [
        str(row["session"]),
        _user(row),
        row["protocol"],
        _address(row),
        row["tls"] or "",
        duration(now - row["since"]),
        row["mailbox"] or "",
        octets(row["received"]),
        octets(row["sent"]),
        str(row["worker"]),
    ]


def _user(row: dict[str, Any]) -> str:
    user = row["user"] or ""
    return f"{user} by {row['delegate']}" if row.get("delegate") else str(user)


def _address(row: dict[str, Any]) -> str:
    peer = row["peer"]
    if peer is None:
        return "local"
    return f"[{peer}]:{row['port']}" if ":" in peer else f"{peer}:{row['port']}"
