"""`mailserver check` and `mailserver show`: the configuration as the server would use it."""

from __future__ import annotations

from pathlib import Path

import click

from mailserver.cli.options import config_option, load_or_fail
from mailserver.config.show import show as written
from mailserver.config.socket_rights import socket_lines
from mailserver.problems import find_problems


@click.command("check")
@config_option
def check(configuration: Path) -> None:
    """Check the configuration and everything that it names; print every problem at once."""
    config, problems = find_problems(configuration)
    for problem in problems:
        click.echo(problem)
    if config is None:
        raise SystemExit(1)
    for line in socket_lines(config):
        click.echo(line)
    click.echo(f"{configuration}: no errors")


@click.command("show")
@config_option
def show(configuration: Path) -> None:
    """Print the effective configuration, defaults included, without secrets."""
    click.echo(written(load_or_fail(configuration)), nl=False)
