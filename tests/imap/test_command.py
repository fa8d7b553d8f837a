"""The command table: one row a command, its reference generated from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.imap.__main__ import plain
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import ANY, Command, CommandSpec, build_table
from mailserver.imap.commands import FAMILIES
from mailserver.imap.session import Session
from mailserver.reference import markdown
from mailserver.session.command_table import DuplicateCommand
from mailserver.session.cost import CONSTANT
from tests.imap.sessions import connect, logged_in, services
from tests.transcript import load


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

    capabilities = (
        Capability("XCOUNT", "RFC 9999", __name__, "count"),
        Capability("XSTATE", "RFC 9999", __name__, "count", offer=lambda session: [session.state.name]),
    )
    family = (CommandSpec("XCOUNT", ANY, count, capabilities=capabilities, cost=CONSTANT),)
    service = services(table=build_table([*(each.COMMANDS for each in FAMILIES), family]))
    client = connect(service)
    before = client.take()
    assert b" XCOUNT" in before
    assert b" NOT_AUTHENTICATED" in before
    assert client.ask(b"a XCOUNT four\r\n") == b"* XCOUNT 4\r\na OK [XDONE] counted\r\n"
    after = logged_in(service).ask(b"b CAPABILITY\r\n")
    assert b" AUTHENTICATED" in after


def test_enable_turns_on_what_needs_it_once() -> None:
    calls: list[str] = []

    family = (
        CommandSpec(
            "XCOUNT",
            ANY,
            nothing,
            capabilities=(
                Capability("XPLAIN", "RFC 9999", __name__, "count"),
                Capability("XMORE", "RFC 9999", __name__, "count", enable=lambda session: calls.append(session.user)),
            ),
            cost=CONSTANT,
        ),
    )
    client = logged_in(services(table=build_table([*(each.COMMANDS for each in FAMILIES), family])))
    assert client.ask(b"a ENABLE XPLAIN xmore XNONE\r\n") == b"* ENABLED XMORE\r\na OK ENABLE completed\r\n"
    assert calls == [client.session.user]
    assert client.session.enabled == {"XMORE"}
    assert client.ask(b"a ENABLE XMORE\r\n") == b"* ENABLED\r\na OK ENABLE completed\r\n"
    assert len(calls) == 1


def test_every_capability_names_its_transcript() -> None:
    for each in services().capabilities:
        named = load("imap", each.transcript).header.capabilities
        assert any(token.startswith(each.token) for token in named), each
