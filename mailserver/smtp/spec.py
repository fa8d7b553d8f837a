"""What an SMTP command is: one row of a table, in the module that does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import frozen


@frozen
class CommandSpec:
    """One row of the command table."""

    name: bytes
    run: Callable[[Any, bytes], Awaitable[None]]
    """Gets the session, of the kind that its table is for, and the octets behind the name and its space."""
    rfc: str
    before_tls: bool = False
    """Allowed where TLS must be started first (RFC 3207 4)."""
