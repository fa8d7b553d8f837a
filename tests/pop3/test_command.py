"""POP3 commands are rows: one module, and its name in FAMILIES, add one."""

from __future__ import annotations

from types import ModuleType

import pytest
from attrs import evolve

from mailserver.pop3.__main__ import plain
from mailserver.pop3.command import TRANSACTION, Capability, CommandSpec, State, build_table
from mailserver.pop3.commands import FAMILIES
from mailserver.pop3.session import Session
from mailserver.session.command_table import DuplicateCommand
from mailserver.session.cost import CONSTANT
from tests.pop3.dialogs import World


async def xcount(session: Session, argument: bytes) -> None:
    """Answer."""
    session.ok(f"{len(argument)} octets")


def offer(session: Session) -> str | None:
    return "XCOUNT octets" if session.state is State.TRANSACTION else None


XCOUNT = ModuleType("mailserver.pop3.commands.xcount")
vars(XCOUNT)["COMMANDS"] = (
    CommandSpec(b"XCOUNT", TRANSACTION, xcount, "RFC 0", (Capability("XCOUNT", offer),), cost=CONSTANT),
)


def test_a_command_is_one_row() -> None:
    world = World()
    world.services = evolve(world.services, table=build_table([*FAMILIES, XCOUNT]))
    client = world.connect()
    client.take()
    assert client.ask(b"XCOUNT four\r\n") == b"-ERR not allowed in this state\r\n"
    assert b"XCOUNT" not in client.ask(b"CAPA\r\n")
    client.ask(b"USER anna@example.test\r\nPASS secret\r\n")
    assert client.ask(b"XCOUNT four\r\n") == b"+OK 4 octets\r\n"
    assert client.ask(b"CAPA\r\n").endswith(b"\r\nXCOUNT octets\r\n.\r\n")


def test_a_name_is_claimed_once() -> None:
    with pytest.raises(DuplicateCommand, match="XCOUNT"):
        build_table([*FAMILIES, XCOUNT, XCOUNT])


def test_the_table_names_the_file_of_each_row() -> None:
    lines = [line.split() for line in plain().splitlines()]
    assert ["TOP", "transaction", "TOP", "RFC", "1939", "7", "pop3/commands/retrieve.py"] in lines
