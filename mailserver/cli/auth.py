"""`mailserver auth`: the back ends that are there, and whether one keeps the contract."""

from __future__ import annotations

import sys
from typing import Any

import click
from twisted.internet import defer, task

from mailserver.auth.conformance import DirectHasher, examine
from mailserver.auth.passwd import BadName, normalise
from mailserver.auth.plugins import BrokenBackend, UnknownBackend, find_backend, known_backends
from mailserver.cli.options import Sentences
from mailserver.cli.user import ask_password
from mailserver.types import Secret


@click.group("auth", cls=Sentences)
def auth() -> None:
    """Look at the back ends of logins."""


@auth.command("list")
def list_backends() -> None:
    """List the back ends that the configuration may name, and what their arguments are."""
    for maker in known_backends():
        click.echo(f"{maker.name}:  {maker.usage}")


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
