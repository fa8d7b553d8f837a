"""`mailserver auth`: lists back ends, and tests one against the contract."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from twisted.internet import defer, task

from mailserver.auth.backends.guard import CONCURRENCY
from mailserver.auth.conformance import DirectHasher, Finding, examine
from mailserver.auth.conformance_trial import CALL_TIME, NoAnswer
from mailserver.auth.plugins import BrokenBackend, UnknownBackend, find_backend, known_backends
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.cli.columns import print_table
from mailserver.cli.options import FullHelpGroup, config_option
from mailserver.cli.user import ask_password
from mailserver.config import load
from mailserver.config.model import BackendUse
from mailserver.types import Secret


@click.group("auth", cls=FullHelpGroup)
def auth() -> None:
    """List and test the back ends of authentication."""


@auth.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
def list_backends(configuration: Path, *, as_json: bool) -> None:
    """List the installed back ends, with their arguments, and whether the configuration uses them."""
    # With an invalid configuration none is in use: the administrator may be looking for the right name here.
    config, _problems = load.load(configuration)
    named = {each.name for each in config.auth.backends} if config is not None else set()
    # Not the argument in the configuration, which may contain a password.
    rows = [(maker.name, maker.usage, maker.name in named) for maker in known_backends()]
    if as_json:
        data = [{"backend": name, "argument": usage, "configured": configured} for name, usage, configured in rows]
        click.echo(json.dumps(data, indent=2))
        return
    print_table(
        ("BACKEND", "ARGUMENT", "CONFIGURED"),
        [(name, usage, "yes" if configured else "") for name, usage, configured in rows],
    )


@auth.command("conformance")
@click.argument("backend")
@click.argument("name")
@click.option("--domain", "domains", multiple=True, help="One of its `domains` in the configuration. Repeatable.")
@click.option("--cache", type=click.FloatRange(0), default=0.0, help="Its `cache` in the configuration, in seconds.")
@click.option("--calls", type=click.IntRange(1, 1000), default=CONCURRENCY, show_default=True, help="Its `calls`.")
def conformance(backend: str, name: str, domains: Sequence[str], cache: float, calls: int) -> None:
    """Test everything that logins rely on with BACKEND (NAME:ARGUMENT, as in the configuration) and its user NAME.

    The user's password is asked for, or read from standard input. A call without an answer within 5 seconds, the timeout of a
    login, ends the test.
    """
    try:
        made = find_backend(backend, DirectHasher())
        plain = normalise(name)
    except (UnknownBackend, BrokenBackend, BadName) as error:
        raise click.ClickException(str(error)) from error
    password = Secret(ask_password(generate=False, confirm=False).encode("utf-8"))
    use = BackendUse(backend, tuple(each.lower() for each in domains), calls=calls, cache=cache)
    faults = 0

    async def run(reactor: Any) -> None:
        nonlocal faults
        async for finding in examine(made, plain, password, lambda call: _within(reactor, call), use=use):
            faults += bool(finding.fault)
            click.echo(_line(finding))

    try:
        task.react(lambda reactor: defer.ensureDeferred(run(reactor)))
    except SystemExit as ended:
        if ended.code:
            raise
    sys.stdout.flush()
    # A back end without an answer may have left a thread that would delay the exit.
    os._exit(1 if faults else 0)


def _line(finding: Finding) -> str:
    if finding.fault:
        return f"FAILED  {finding.promise}: {finding.fault}"
    return f"ok      {finding.promise}" if finding.offered else f"        {finding.promise}: not offered"


async def _within(reactor: Any, call: Callable[[], Any]) -> Any:
    """See conformance.Within. An alarm interrupts a call that blocks; the reactor's clock limits a later answer."""

    def ring(_number: int, _frame: object) -> None:
        raise NoAnswer

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, CALL_TIME)
    try:
        answer = call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if not inspect.isawaitable(answer):
        return answer

    async def wait() -> Any:
        return await answer

    try:
        return await defer.ensureDeferred(wait()).addTimeout(CALL_TIME, reactor)
    except defer.TimeoutError as error:
        raise NoAnswer from error
