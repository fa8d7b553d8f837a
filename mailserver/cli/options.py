"""Options that several subcommands share, and the configuration they name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from mailserver.config import load
from mailserver.config.model import Config
from mailserver.config.values import nearest

MOST_SHOWN: Final = 20
"""Of what there is, where something else was asked for."""

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
    """The configuration, or every problem of the file as the command's error."""
    config, problems = load.load(path)
    if config is None:
        lines = ["the configuration cannot be used:", *(str(each) for each in problems)]
        if not os.path.exists(path):
            lines.append("--config names another file, and so does MAILSERVER_CONFIG in the environment")
        raise click.ClickException("\n".join(lines))
    return config


def instead(word: str, known: Sequence[str]) -> str:
    """What there is in the place of a word that is not known, behind a sentence that says so."""
    if near := nearest(word, known):
        return f"; did you mean {near}?"
    more = f" and {len(known) - MOST_SHOWN} more" if len(known) > MOST_SHOWN else ""
    return f"; there are {', '.join(known[:MOST_SHOWN])}{more}" if known else "; there is none"


class Sentences(click.Group):
    """A group whose help has the first sentence of each command whole, where click would end it with dots."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
