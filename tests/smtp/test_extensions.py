"""ESMTP extensions and commands are rows: one module, and its name in FAMILIES, add one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from attrs import evolve

from mailserver.errors import BadSyntax
from mailserver.session.command_table import DuplicateCommand
from mailserver.session.cost import CONSTANT
from mailserver.smtp.__main__ import plain
from mailserver.smtp.command import LMTP_ONLY, CommandSpec, Extension, Parameter, Role, build_table, describe_extensions
from mailserver.smtp.session import Session
from mailserver.smtp.tables import FAMILIES, SUBMISSION
from mailserver.smtp.wire import reply
from tests.smtp.world import World


def parse_colour(_session: Session, value: str | None) -> str:
    if value is None:
        raise BadSyntax("XCOLOUR needs a value")
    return value.lower()


async def xpaint(session: Session, argument: bytes) -> None:
    """Answer."""
    session.reply(reply(250, "2.0.0", f"painted {argument.decode('ascii')}"))


def module(**rows: object) -> ModuleType:
    """What a file with these rows is."""
    made = ModuleType("mailserver.smtp.extensions.xcolour")
    vars(made).update(rows)
    return made


XCOLOUR = module(
    EXTENSIONS=(
        Extension(
            "XCOLOUR",
            "RFC 0",
            lambda session: f"XCOLOUR {session.hostname}",
            mail=(Parameter("XCOLOUR", parse_colour),),
            rcpt=(Parameter("XSHADE", parse_colour),),
            commands=(CommandSpec(b"XPAINT", xpaint, "RFC 0", cost=CONSTANT),),
            roles=LMTP_ONLY,
            defined_in="mailserver.smtp.extensions.xcolour",
        ),
    )
)


def test_an_extension_is_one_row(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.lmtp = evolve(world.lmtp, table=build_table([*FAMILIES, XCOLOUR], Role.LMTP))
    client = world.connect_lmtp()
    client.take()
    assert client.ask(b"LHLO mx.example.net\r\n").endswith(b"250 XCOLOUR mail.example.test\r\n")
    assert client.ask(b"XPAINT it\r\n") == b"250 2.0.0 painted it\r\n"
    assert b"XPAINT" in client.ask(b"HELP\r\n")
    assert client.ask(b"MAIL FROM:<x@example.net> XCOLOUR\r\n") == b"501 5.5.4 XCOLOUR needs a value\r\n"
    assert client.ask(b"MAIL FROM:<x@example.net> XSHADE=Dark\r\n") == b"555 5.5.4 parameter not recognized\r\n"
    assert client.ask(b"MAIL FROM:<x@example.net> SIZE=7 XCOLOUR=Red\r\n").startswith(b"250")
    assert client.ask(b"RCPT TO:<anna@example.test> XSHADE=Dark\r\n").startswith(b"250")
    assert client.ask(b"RCPT TO:<bert@example.org>\r\n").startswith(b"250")
    assert client.ask(b"RCPT TO:<nobody@example.test> XSHADE=Dark\r\n").startswith(b"550")
    transaction = client.session.transaction
    assert transaction.parameters == {"SIZE": 7, "XCOLOUR": "red"}
    assert {str(address): found for address, found in transaction.recipient_parameters.items()} == {
        "anna@example.test": {"XSHADE": "dark"}
    }


def test_a_row_of_the_other_role_is_left_out(tmp_path: Path) -> None:
    table = build_table([*FAMILIES, XCOLOUR], Role.SUBMISSION)
    assert table == SUBMISSION
    world = World(tmp_path)
    client = world.log_in()
    assert client.ask(b"XPAINT it\r\n") == b"500 5.5.1 unknown command\r\n"
    assert client.ask(b"MAIL FROM:<anna@example.test> XCOLOUR=red\r\n") == b"555 5.5.4 parameter not recognized\r\n"


def test_a_command_alone_is_one_row(tmp_path: Path) -> None:
    world = World(tmp_path)
    family = module(COMMANDS=(CommandSpec(b"XPAINT", xpaint, "RFC 0", cost=CONSTANT),))
    world.submission = evolve(world.submission, table=build_table([*FAMILIES, family], Role.SUBMISSION))
    assert world.log_in().ask(b"xpaint it\r\n") == b"250 2.0.0 painted it\r\n"


def test_a_keyword_is_claimed_once() -> None:
    with pytest.raises(DuplicateCommand, match="XPAINT"):
        build_table([*FAMILIES, XCOLOUR, module(COMMANDS=XCOLOUR.EXTENSIONS[0].commands)], Role.LMTP)
    twice = Extension("SIZE", "RFC 0", mail=(Parameter("SIZE", parse_colour),), defined_in="x")
    with pytest.raises(DuplicateCommand, match="SIZE"):
        build_table([*FAMILIES, module(EXTENSIONS=(twice,))], Role.LMTP)


def test_the_tables_name_the_file_of_each_row() -> None:
    lines = [line.split() for line in plain().splitlines()]
    assert ["BDAT", "RFC", "3030", "2", "smtp/extensions/chunking.py"] in lines
    assert ["SIZE", "MAIL", "SIZE", "smtp/extensions/size.py"] in lines
    for *_, path in describe_extensions(SUBMISSION):
        assert (Path(__file__).parents[2] / "mailserver" / path).is_file()
