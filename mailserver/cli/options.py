"""Options that several subcommands share, and the configuration they name."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mailserver.config import load
from mailserver.config.model import Config

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


class Sentences(click.Group):
    """A group whose help has the first sentence of each command whole, where click would end it with dots."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
