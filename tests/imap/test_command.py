"""The command table: one row a command, its reference generated from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.imap.__main__ import plain
from mailserver.imap.command import ANY, Command, CommandSpec, build_table
from mailserver.imap.commands import FAMILIES
from mailserver.imap.session import Session
from mailserver.reference import markdown
from mailserver.session.command_table import DuplicateCommand
from mailserver.session.cost import CONSTANT
from tests.imap.sessions import connect, logged_in, services


async def nothing(_session: Session, _command: Command) -> None:
    """RFC 3501."""


def test_duplicates_are_refused() -> None:
    family = (CommandSpec("X", ANY, nothing, cost=CONSTANT),)
    with pytest.raises(DuplicateCommand):
        build_table([family, family])
    with pytest.raises(DuplicateCommand):
        build_table(
            [
                (
                    CommandSpec("X", ANY, nothing, cost=CONSTANT, uid_form=True),
                    CommandSpec("UID X", ANY, nothing, cost=CONSTANT),
                )
            ]
        )


def test_uid_forms() -> None:
    spec = CommandSpec("X", ANY, nothing, cost=CONSTANT, uid_form=True, plain_form=False)
    assert build_table([(spec,)]) == {"UID X": spec}


def test_reference_is_up_to_date() -> None:
    path = Path(__file__).parents[2] / "docs" / "commands.md"
    assert path.read_text(encoding="utf-8") == markdown(), "run python -m mailserver.reference"


def test_plain_names_the_file() -> None:
    (line,) = [line for line in plain().splitlines() if line.startswith("IDLE ")]
    assert line.split() == ["IDLE", "logged", "in", "IDLE", "RFC", "2177", "imap/commands/idle.py"]


def test_a_command_is_one_row() -> None:
    async def count(session: Session, command: Command) -> str:
        command.reader.read_sp()
        session.untagged(b"XCOUNT %d" % len(command.reader.read_atom()))
        return "[XDONE] counted"

    family = (
        CommandSpec(
            "XCOUNT", ANY, count, capabilities=("XCOUNT",), offer=lambda session: [session.state.name], cost=CONSTANT
        ),
    )
    service = services(table=build_table([*(each.COMMANDS for each in FAMILIES), family]))
    client = connect(service)
    before = client.take()
    assert b" XCOUNT" in before
    assert b" NOT_AUTHENTICATED " in before
    assert client.ask(b"a XCOUNT four\r\n") == b"* XCOUNT 4\r\na OK [XDONE] counted\r\n"
    assert b" AUTHENTICATED " in logged_in(service).ask(b"b CAPABILITY\r\n")
