"""What POP3 and SMTP sessions share. How lines come in time is told by the dialogs of both."""

from __future__ import annotations

import pytest

from mailserver.session.cost import CONSTANT
from mailserver.session.line_session import build_table
from mailserver.smtp.spec import CommandSpec


async def nothing(session: object, argument: bytes) -> None:
    """Do nothing."""


def test_a_table_has_each_name_once() -> None:
    noop, stat = CommandSpec(b"NOOP", nothing, "x", cost=CONSTANT), CommandSpec(b"STAT", nothing, "x", cost=CONSTANT)
    assert build_table((noop,), (stat,)) == {b"NOOP": noop, b"STAT": stat}
    with pytest.raises(ValueError, match="NOOP"):
        build_table((noop, stat), (CommandSpec(b"NOOP", nothing, "y", cost=CONSTANT),))
