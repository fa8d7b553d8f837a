"""`mailserver status`: the state of the running server."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from mailserver.cli.acme import print_renewals
from mailserver.cli.columns import duration, octets, print_table
from mailserver.cli.control import ask_or_fail
from mailserver.cli.options import config_option
from mailserver.cli.sessions import finish
from mailserver.tls.state.expiry import in_days


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@config_option
def status(configuration: Path, *, as_json: bool) -> None:
    """Show listeners, certificates, workers, and the usage of caches and queues.

    The status is 1 if a worker does not answer.
    """
    answer = ask_or_fail(configuration, "status")
    if as_json:
        click.echo(json.dumps(answer.data, indent=2))
    else:
        _show(answer.data, time.time())
    finish(answer)


def _show(status: dict[str, Any], now: float) -> None:
    print_table(
        ("LISTENER", "PROTOCOL", "TLS", "CONNECTIONS"),
        [
            (
                listener["place"],
                listener["protocol"],
                listener["tls"] + (" or none" if listener["cleartext"] else ""),
                str(listener["connections"]),
            )
            for listener in status["listeners"]
        ],
    )
    click.echo()
    print_table(
        ("HOST", "DOMAIN", "CERTIFICATE UNTIL", "DAYS LEFT", "FROM", "ISSUER", "DEFAULT"),
        [
            (
                host["host"],
                host["domain"],
                host["not_after"],
                str(host["days_left"]) + " (!)" * (host["warning"] is not None),
                host["origin"],
                host["issuer"],
                "yes" * host["default"],
            )
            for host in status["certificates"]
        ],
    )
    for host in status["certificates"]:
        if host["origin"] not in _HEALTHY_ORIGINS:
            click.echo(
                f"warning: {host['host']}: its certificate is {host['origin']}; `mailserver check` or the log says why",
                err=True,
            )
        if host["warning"] is not None:
            ends = f"ends in {in_days(host['days_left'])}" if host["warning"] else "has ended; clients refuse it"
            click.echo(f"warning: {host['host']}: the certificate {ends}", err=True)
    if status["acme"]:
        click.echo()
        print_renewals(status["acme"], now)
    if status["exposures"]:
        click.echo(
            f"warning: users with exposed passwords: {status['exposures']}, see `mailserver exposures list`", err=True
        )
    if status.get("bans"):  # a server of the previous release sends none
        click.echo()
        click.echo(f"banned clients: {status['bans']}, see `mailserver bans list`")
    click.echo()
    print_table(
        ("WORKER", "PID", "STATE", "UP", "SESSIONS", "LOGGED IN", "MEMORY", "FILES"),
        [_worker(worker, now) for worker in status["workers"]],
    )
    click.echo()
    answering = [worker for worker in status["workers"] if worker["answers"]]
    print_table(
        ("OF WORKER", *(str(worker["worker"]) for worker in answering)),
        [(head, *(_usage(worker.get(name)) for worker in answering)) for head, name in USAGE_ROWS],
    )


_HEALTHY_ORIGINS = frozenset({"file", "added", "acme"})
"""Origins of certificates without a fault."""

USAGE_ROWS = (
    ("open accounts", "accounts_in_use"),
    ("kept accounts", "accounts_kept"),
    ("open indexes", "indexes"),
    ("open messages", "messages_in_use"),
    ("kept messages", "messages_kept"),
    ("message octets", "message_octets"),
    ("kept files", "files_kept"),
    ("commands", "commands_known"),
    ("hashes running", "hashes_running"),
    ("hashes waiting", "hashes_waiting"),
    ("mailboxes read apart", "mailboxes_read_apart"),
    ("session octets", "session_octets"),
    ("maintenance due", "maintenance_due"),
    ("maintenance ms", "maintenance_milliseconds"),
    ("penalties", "penalties"),
    ("known networks", "known_networks"),
)
"""Rows of the last table: the label, and the key in a worker's answer."""


def _usage(value: Any) -> str:
    """[number, limit] -> "12 of 64"; a number without a limit is shown as it is."""
    match value:
        case [number, bound]:
            return f"{number} of {bound}"
        case None:
            return ""
    return str(value)


def _worker(worker: dict[str, Any], now: float) -> tuple[str, ...]:
    number, pid = str(worker["worker"]), str(worker.get("pid", ""))
    if not worker["answers"]:
        return (number, pid, "does not answer", "", "", "", "", "")
    sessions = worker["sessions"]
    return (
        number,
        pid,
        worker.get("state", "serving"),
        duration(now - worker["since"]),
        str(sessions["all"]),
        str(sessions["logged_in"]),
        octets(worker["memory"]),
        _usage([worker["descriptors"], worker["descriptors_most"]]),
    )
