"""What an SMTP command is: one row of a table, in the module that does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import field, frozen

from mailserver.session.cost import Cost


@frozen
class CommandSpec:
    """One row of the command table."""

    name: bytes
    run: Callable[[Any, bytes], Awaitable[None]]
    """Gets the session, of the kind that its table is for, and the octets behind the name and its space."""
    rfc: str
    cost: Cost = field(kw_only=True)
    """The work that it can cause at most, and where that is done."""
    before_tls: bool = False
    """Allowed where TLS must be started first (RFC 3207 4)."""
