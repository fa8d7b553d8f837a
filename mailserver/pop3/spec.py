"""What a POP3 command is: one row of a table, in the module that does it."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from attrs import field, frozen

from mailserver.session.cost import Cost

if TYPE_CHECKING:
    from mailserver.pop3.session import Session


class State(enum.Enum):
    """RFC 1939 3. UPDATE is what QUIT does in TRANSACTION."""

    AUTHORIZATION = 1
    TRANSACTION = 2


@frozen
class CommandSpec:
    """One row of the command table."""

    name: bytes
    states: frozenset[State]
    run: Callable[[Session, bytes], Awaitable[None]]
    """Gets the octets behind the command's name and its space."""
    rfc: str
    cost: Cost = field(kw_only=True)
    """The work that it can cause at most, and where that is done."""
