"""`mailserver auth`: the back ends that are there, and whether one keeps the contract."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from twisted.internet import defer, task

from mailserver.auth.conformance import CALL_TIME, DirectHasher, Finding, NoAnswer, examine
from mailserver.auth.plugins import BrokenBackend, UnknownBackend, find_backend, known_backends
from mailserver.auth.schemes.passwd import BadName, normalise
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

    The user's password is asked for, or read from standard input. A call that has no answer within 5 seconds, as long as a login
    would wait, ends the trial.
    """
    try:
        made = find_backend(backend, DirectHasher())
        plain = normalise(name)
    except (UnknownBackend, BrokenBackend, BadName) as error:
        raise click.ClickException(str(error)) from error
    password = Secret(ask_password(generate=False, confirm=False).encode("utf-8"))
    faults = 0

    async def run(reactor: Any) -> None:
        nonlocal faults
        async for finding in examine(made, plain, password, lambda call: _within(reactor, call)):
            faults += bool(finding.fault)
            click.echo(_line(finding))

    try:
        task.react(lambda reactor: defer.ensureDeferred(run(reactor)))
    except SystemExit as ended:
        if ended.code:
            raise
    sys.stdout.flush()
    # A back end that has not answered may have left a thread behind that would be waited for.
    os._exit(1 if faults else 0)


def _line(finding: Finding) -> str:
    if finding.fault:
        return f"FAILED  {finding.promise}: {finding.fault}"
    return f"ok      {finding.promise}" if finding.offered else f"        {finding.promise}: not offered"


async def _within(reactor: Any, call: Callable[[], Any]) -> Any:
    """See conformance.Within. An alarm ends a call that blocks, and the reactor's clock one that answers later."""

    def ring(_number: int, _frame: object) -> None:
        raise NoAnswer

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, CALL_TIME)
    try:
        given = call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if not inspect.isawaitable(given):
        return given

    async def wait() -> Any:
        return await given

    try:
        return await defer.ensureDeferred(wait()).addTimeout(CALL_TIME, reactor)
    except defer.TimeoutError as error:
        raise NoAnswer from error
