"""`mailserver check` and `mailserver show`: the configuration as the server would take it."""

from __future__ import annotations

from pathlib import Path

import click

from mailserver.auth import judging
from mailserver.cli.options import config_option, load_or_fail
from mailserver.config import load
from mailserver.config.directories import check_directories
from mailserver.config.model import Config, Problem
from mailserver.config.show import show as written
from mailserver.pop3 import uidl
from mailserver.tls import certificates


def find_problems(path: Path, *, starting: bool = False) -> tuple[Config | None, list[Problem]]:
    """Everything wrong with the file and with what it names: certificates, users, directories.

    A certificate that cannot be served is no reason not to start: with `starting` that is a warning. The configuration is None if the server cannot start with it; warnings come with either. Raises nothing.
    """
    reading = load.read(path)
    if reading.config is None:
        return None, list(reading.problems)
    config = reading.config
    more = [
        *certificates.check(config, starting=starting),
        *judging.check(config),
        *uidl.check(config),
        *check_directories(config),
    ]
    problems = reading.joined(more)
    return (config if all(problem.warning for problem in problems) else None), problems


@click.command("check")
@config_option
def check(configuration: Path) -> None:
    """Check the configuration and all that it names; print every problem at once."""
    config, problems = find_problems(configuration)
    for problem in problems:
        click.echo(problem)
    if config is None:
        raise SystemExit(1)
    click.echo(f"{configuration}: no errors")


@click.command("show")
@config_option
def show(configuration: Path) -> None:
    """Print the effective configuration, defaults included, without secrets."""
    click.echo(written(load_or_fail(configuration)), nl=False)
