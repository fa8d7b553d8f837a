"""`mailserver auth`: the back ends that are there, and whether one keeps the contract."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from twisted.internet import defer, task

from mailserver.auth.conformance import DirectHasher, examine
from mailserver.auth.passwd import BadName, normalise
from mailserver.auth.plugins import BrokenBackend, UnknownBackend, find_backend, known_backends
from mailserver.cli.columns import print_table
from mailserver.cli.options import Sentences, config_option
from mailserver.cli.user import ask_password
from mailserver.config import load
from mailserver.types import Secret


@click.group("auth", cls=Sentences)
def auth() -> None:
    """Look at the back ends of logins."""


@auth.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def list_backends(configuration: Path, *, as_json: bool) -> None:
    """List the back ends that the configuration may name, what their arguments are, and whether it does."""
    # One that cannot be used names none: this is where its reader looks for the right word.
    config, _problems = load.load(configuration)
    named = {each.partition(":")[0] for each in config.auth.backends} if config is not None else set()
    # Not the argument of the configuration, which may hold a password.
    rows = [(maker.name, maker.usage, maker.name in named) for maker in known_backends()]
    if as_json:
        told = [{"backend": name, "argument": usage, "configured": configured} for name, usage, configured in rows]
        click.echo(json.dumps(told, indent=2))
        return
    print_table(
        ("BACKEND", "ARGUMENT", "CONFIGURED"),
        [(name, usage, "yes" if configured else "") for name, usage, configured in rows],
    )


@auth.command("conformance")
@click.argument("backend")
@click.argument("name")
def conformance(backend: str, name: str) -> None:
    """Try on BACKEND (NAME:ARGUMENT, as in the configuration) what logins rely on, with the user NAME it knows.

    The user's password is asked for, or read from standard input.
    """
    try:
        made = find_backend(backend, DirectHasher())
        plain = normalise(name)
    except (UnknownBackend, BrokenBackend, BadName) as error:
        raise click.ClickException(str(error)) from error
    password = Secret(ask_password(generate=False, confirm=False).encode("utf-8"))
    faults = 0

    async def run(_reactor: Any) -> None:
        nonlocal faults
        async for finding in examine(made, plain, password):
            faults += bool(finding.fault)
            click.echo(f"FAILED  {finding.promise}: {finding.fault}" if finding.fault else f"ok      {finding.promise}")

    try:
        task.react(lambda reactor: defer.ensureDeferred(run(reactor)))
    except SystemExit as ended:
        if ended.code:
            raise
    sys.exit(1 if faults else 0)
