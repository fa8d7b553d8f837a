"""The tables of the line protocols."""

from __future__ import annotations

import pytest

from mailserver.session.command_table import DuplicateCommand, index_rows
from mailserver.session.cost import CONSTANT
from mailserver.smtp.command import CommandSpec


async def nothing(session: object, argument: bytes) -> None:
    """Do nothing."""


def test_a_table_has_each_name_once() -> None:
    noop, stat = CommandSpec(b"NOOP", nothing, "x", cost=CONSTANT), CommandSpec(b"STAT", nothing, "x", cost=CONSTANT)
    assert index_rows((noop, stat)) == {b"NOOP": noop, b"STAT": stat}
    with pytest.raises(DuplicateCommand, match="NOOP"):
        index_rows((noop, stat, CommandSpec(b"NOOP", nothing, "y", cost=CONSTANT)))
