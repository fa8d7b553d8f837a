"""docs/administration.md against the commands: each that has --json is there, with the keys that it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.cli.status import USAGE_ROWS
from mailserver.probe.examine import Row
from mailserver.probe.injection import Verdict

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "administration.md").read_text()
PAGE_OF_OPERATIONS = (DOCS / "operations.md").read_text()


def commands(group: click.Group = main, name: str = "mailserver") -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def documented() -> dict[str, set[str]]:
    """Of each command with --json, the keys in its row of the table."""
    table = PAGE.partition("| command with `--json` |")[2].partition("\n\n")[0]
    rows = re.findall(r"(?m)^\| `(mailserver [a-z -]+)` \| (.*) \|$", table)
    return {command: set(re.findall(r"`([a-z0-9_]+)`", keys)) for command, keys in rows}


def fills() -> set[str]:
    """The keys of docs/operations.md, of how full a worker is."""
    table = PAGE_OF_OPERATIONS.partition("| column (key in `--json`) |")[2].partition("\n\n")[0]
    return {key for cell in re.findall(r"(?m)^\| ([^|]*) \|", table) for key in re.findall(r"`([a-z_]+)`", cell)}


def old_names() -> set[str]:
    """The keys that docs/operations.md promises for one release more."""
    return set(re.findall(r"under its old name `([a-z_]+)`", PAGE_OF_OPERATIONS))


def keys(value: Any) -> set[str]:
    """All of a JSON value, those inside it too."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return value.keys() | set().union(*map(keys, value.values())) if isinstance(value, dict) else set()


def test_each_command_with_json_is_in_the_table() -> None:
    with_json = {name for name, command in commands() if any(each.name == "as_json" for each in command.params)}
    assert documented().keys() == with_json


def test_what_the_page_names_is_there() -> None:
    known = {name for name, _command in commands()} | {"mailserver"}
    named = set(re.findall(r"`(mailserver[a-z -]*?)(?: --[a-z]+)?`", PAGE))
    assert named <= known
    pages = PAGE.partition("| commands | page |")[2]
    told = {f"mailserver {word}" for word in re.findall(r"`([a-z-]+)`", pages)}
    assert {" ".join(name.split()[:2]) for name in known - {"mailserver"}} <= told


@pytest.mark.parametrize(
    "words",
    [
        "user list",
        "auth list",
        "cert list",
        "ca show",
        "ca list",
        "client-settings anna@example.test",
        "dns records example.test",
        "imap capabilities",
        "index show anna@example.test",
        "mailbox special-use anna@example.test",
    ],
)
def test_the_keys_are_those_of_the_table(demonstration: Path, words: str) -> None:
    done = CliRunner().invoke(main, [*words.split(), "--json", "--config", str(demonstration)])
    assert done.exit_code == 0, done.output
    given = keys(json.loads(done.stdout))
    assert given
    name = next(each for each in documented() if f"mailserver {words} ".startswith(f"{each} "))
    assert given - documented()[name] == set()


def test_status_shows_what_the_page_on_running_names() -> None:
    assert {key for _head, key in USAGE_ROWS} == fills() - {"mailboxes_in_use", "mailboxes_kept"}


def test_the_keys_of_what_asks_a_server() -> None:
    told = documented()
    assert {each.name for each in attrs.fields(Verdict)} <= told["mailserver selftest starttls"]
    assert {each.name for each in attrs.fields(Row)} <= told["mailserver tls probe"]
