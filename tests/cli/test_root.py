"""The help of `mailserver` and of its groups."""

import click
import pytest
from click.testing import CliRunner

from mailserver.cli import main

GROUPS = [(), *((name,) for name, command in main.commands.items() if isinstance(command, click.Group))]


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_no_sentence_of_the_help_is_cut_short(words: tuple[str, ...]) -> None:
    output = CliRunner().invoke(main, [*words, "--help"], terminal_width=80).output
    commands = output.partition("Commands:\n")[2]
    assert commands
    assert "..." not in commands
