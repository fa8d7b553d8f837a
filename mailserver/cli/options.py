"""Options that several commands share, and the configuration that they name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from mailserver.config import load
from mailserver.config.model import Config
from mailserver.config.values import nearest

MAX_SUGGESTIONS: Final = 20
"""Longest list of suggestions."""

config_option = click.option(
    "--config",
    "configuration",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MAILSERVER_CONFIG",
    default=Path("/etc/mailserver/mailserver.toml"),
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)


def load_or_fail(path: Path) -> Config:
    """Load the configuration. Raises: click.ClickException, with every problem of the file."""
    config, problems = load.load(path)
    if config is None:
        lines = ["the configuration cannot be used:", *(str(each) for each in problems)]
        if not os.path.exists(path):
            lines.append("--config, or MAILSERVER_CONFIG in the environment, names another file")
        raise click.ClickException("\n".join(lines))
    return config


def suggestion(word: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown word: a similar word, or the known ones."""
    if near := nearest(word, known):
        return f"; did you mean {near}?"
    more = f" and {len(known) - MAX_SUGGESTIONS} more" if len(known) > MAX_SUGGESTIONS else ""
    return f"; there are {', '.join(known[:MAX_SUGGESTIONS])}{more}" if known else "; there is none"


class FullHelpGroup(click.Group):
    """A group whose help shows the whole first sentence of each command, where click would truncate it."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
