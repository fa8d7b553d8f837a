"""`mailserver selftest`: harmless attacks on one's own server, which it must withstand."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import click

from mailserver.cli.columns import print_table
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail
from mailserver.probe.injection import try_all
from mailserver.probe.place import places


@click.group("selftest", cls=FullHelpGroup)
def selftest() -> None:
    """Attack the running server, harmlessly."""


@selftest.command("starttls")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def starttls(configuration: Path, *, as_json: bool) -> None:
    """Inject commands in clear text after STARTTLS, which the server must refuse.

    The command tries every listener with STARTTLS: in one segment with STARTTLS, and between its answer and the handshake.
    The status is 1 unless all are refused.
    """
    verdicts = try_all(places(load_or_fail(configuration)))
    if as_json:
        click.echo(json.dumps([attrs.asdict(verdict) for verdict in verdicts], indent=2))
    else:
        print_table(
            ("LISTENER", "CLEARTEXT", "RESULT", ""),
            [(verdict.place, verdict.way, verdict.state, verdict.words) for verdict in verdicts],
        )
    if not verdicts and not as_json:
        click.echo("no listener has STARTTLS")
    if any(verdict.state != "refused" for verdict in verdicts):
        raise SystemExit(1)
