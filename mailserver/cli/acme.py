"""`mailserver acme`: certificates that a running server gets from an ACME authority."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path
from typing import Any, Final

import click

from mailserver.cli.columns import duration, print_table
from mailserver.cli.control import Answer, NotRunning, ask, ask_or_fail, server_config
from mailserver.cli.options import FullHelpGroup, config_option
from mailserver.cli.sessions import finish
from mailserver.tls.acme.account import REASONS

PATIENCE: Final = 600.0
"""Maximum seconds that `renew` waits."""
POLL_INTERVAL: Final = 1.0


@click.group("acme", cls=FullHelpGroup)
def acme() -> None:
    """Certificates from an ACME authority, such as Let's Encrypt."""


@acme.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def status(configuration: Path, *, as_json: bool) -> None:
    """Show the next renewal of each host, and why the last one failed.

    The exit status is 1 if the last attempt of a host has failed.
    """
    answer = ask_or_fail(configuration, "acme-status")
    if as_json:
        click.echo(json.dumps(answer.data, indent=2))
    elif answer.ok and not answer.data:
        click.echo("no [[domain]] has acme = true", err=True)
    else:
        print_renewals(answer.data, time.time())
    finish(answer)
    if any(row["failures"] for row in answer.data):
        raise SystemExit(1)


@acme.command("renew")
@click.argument("host", metavar="[NAME]", default="")
@click.option("--no-wait", is_flag=True, help="Do not wait for the result.")
@config_option
def renew(configuration: Path, host: str, *, no_wait: bool) -> None:
    """Order a new certificate for NAME, or for all hosts, now."""
    host = host.lower()
    _print_answer(ask_or_fail(configuration, "acme-renew", host=host))
    if not no_wait:
        _wait(configuration, host)


@acme.command("account")
@click.option("--update", "what", flag_value="update", help="Give it the contacts of the configuration first.")
@click.option("--deactivate", "what", flag_value="deactivate", help="End it for good; the next order makes another.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
def account(configuration: Path, what: str | None, *, as_json: bool) -> None:
    """Show the account at the authority: its address, its state, its contacts."""
    answer = ask_or_fail(configuration, "acme-account", what=what or "show")
    if as_json and answer.ok:
        click.echo(json.dumps(answer.data, indent=2))
    else:
        for name, value in answer.data.items():
            click.echo(f"{name + ':':12}{value}".rstrip())
    _print_answer(answer)


@acme.command("rollover")
@config_option
def rollover(configuration: Path) -> None:
    """Give the account at the authority a new key, in case others know the old one.

    Certificates have keys of their own, a new one for each order.
    """
    _print_answer(ask_or_fail(configuration, "acme-rollover"))


@acme.command("revoke")
@click.argument("host", metavar="NAME")
@click.option(
    "--activation", metavar="ID", type=click.IntRange(1), help="An activation of its history instead of the served one."
)
@click.option(
    "--reason",
    type=click.Choice(REASONS),
    default="unspecified",
    show_default=True,
    help="The reason sent to the authority (RFC 5280 5.3.1).",
)
@config_option
def revoke(configuration: Path, host: str, activation: int | None, reason: str) -> None:
    """Have the authority revoke the certificate of NAME, and order another.

    The revoked one is served until the other arrives.
    """
    _print_answer(ask_or_fail(configuration, "acme-revoke", host=host.lower(), id=str(activation or ""), reason=reason))


def print_renewals(rows: list[dict[str, Any]], now: float) -> None:
    """Print a table of renewals, and below it the errors."""
    print_table(
        ("HOST", "CERTIFICATE UNTIL", "NEXT RENEWAL", "FAILURES"),
        [
            (
                row["host"],
                "self-signed" if row["self_signed"] else _time(row["not_after"]),
                "running" if row["running"] else _next(row["next"], now),
                str(row["failures"] or ""),
            )
            for row in rows
        ],
    )
    for row in rows:
        if row["error"]:
            click.echo(f"{row['host']}: failed on {_time(row['tried'])}: {row['error']}", err=True)
        if row["explanation"]:
            click.echo(f"{row['host']}: the authority explains the renewal at {row['explanation']}", err=True)


def _print_answer(answer: Answer) -> None:
    for line in answer.lines:
        click.echo(line, err=not answer.ok)
    if not answer.ok:
        raise SystemExit(1)


def _wait(configuration: Path, host: str) -> None:
    config = server_config(configuration)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            answer = ask(config, "acme-status").data
        except (NotRunning, OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        rows = [row for row in answer if host in ("", row["host"])]
        if not any(row["running"] for row in rows):
            break
        if time.monotonic() > end:
            raise click.ClickException("still running; `mailserver acme status` shows the result")
        time.sleep(POLL_INTERVAL)
    for row in rows:
        failed = f"no certificate: {row['error']}"
        click.echo(f"{row['host']}: {failed if row['failures'] else 'until ' + _time(row['not_after'])}")
    if any(row["failures"] for row in rows):
        raise SystemExit(1)


def _next(when: int, now: float) -> str:
    return "now" if when <= now else f"{_time(when)} (in {duration(when - now)})"


def _time(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M")
