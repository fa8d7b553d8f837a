"""`mailserver imap`: what IMAP sessions offer."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

import click

from mailserver.cli.columns import print_table
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail
from mailserver.config.model import Imap
from mailserver.config.values import as_toml
from mailserver.imap.capabilities import Capability, declared, describe_capabilities
from mailserver.imap.commands import TABLE

_HEAD = ("CAPABILITY", "LISTED", "REFERENCE", "CODE", "TRANSCRIPT")


@click.group("imap", cls=FullHelpGroup)
def imap() -> None:
    """Show what IMAP sessions offer."""


@imap.command("capabilities")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@config_option
@click.pass_context
def capabilities(context: click.Context, configuration: Path, *, as_json: bool) -> None:
    """Print each capability: when it is listed, its RFC, the file that does it below mailserver/, its transcript in
    tests/transcripts/imap/.

    With a configuration file also what it switches off or hides.
    """
    chosen = context.get_parameter_source("configuration") is not click.core.ParameterSource.DEFAULT
    config = load_or_fail(configuration).imap if chosen or configuration.exists() else Imap()
    found = declared(spec.capabilities for spec in TABLE.values())
    states = {each.token: _state(each, config) for each in found}
    rows = [(token, states[token] or listed, *rest) for token, listed, *rest in describe_capabilities(found)]
    if as_json:
        click.echo(json.dumps([dict(zip(map(str.lower, _HEAD), row, strict=True)) for row in rows], indent=2))
    else:
        print_table(_HEAD, rows)


def _state(capability: Capability, config: Imap) -> str:
    """What the configuration changes; empty if nothing."""
    if capability.setting and not getattr(config, capability.setting):
        return f"off: {capability.setting} = {as_toml(getattr(config, capability.setting))}"
    rules = [rule for rule in config.hide if any(_fits(capability.token, pattern) for pattern in rule.capabilities)]
    if any(not (rule.client or rule.users or rule.ports) for rule in rules):
        return "hidden"
    return "hidden from some" if rules else ""


def _fits(token: str, pattern: str) -> bool:
    return fnmatchcase(token.lower(), pattern.lower())
