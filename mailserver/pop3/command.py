"""The rows of POP3's tables: a command, a capability. Each stands in the module that does it; `build_table` joins them."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import field, frozen

from mailserver.errors import BadSyntax
from mailserver.session.command_table import index_rows, source_path
from mailserver.session.cost import Cost


class State(enum.Enum):
    """RFC 1939 3. UPDATE is what QUIT does in TRANSACTION."""

    AUTHORIZATION = 1
    TRANSACTION = 2


AUTHORIZATION: Final = frozenset([State.AUTHORIZATION])
TRANSACTION: Final = frozenset([State.TRANSACTION])
ANY: Final = frozenset(State)


@frozen
class Capability:
    """A line of the answer to CAPA (RFC 2449 5)."""

    keyword: str
    offer: Callable[[Any], str | None] | None = None
    """The line for this session now, None where it is not offered; the keyword alone where this is None."""

    def line(self, session: object) -> str | None:
        """The line for a session."""
        return self.keyword if self.offer is None else self.offer(session)


@frozen
class CommandSpec:
    """A command. `run` takes the session, and the octets behind the command's name and its space.

    It reads them to the end, writes the positive answer, and raises a MailError for a negative one.
    """

    name: bytes
    states: frozenset[State]
    run: Callable[[Any, bytes], Awaitable[None]]
    reference: str
    capabilities: Sequence[Capability] = ()
    cost: Cost = field(kw_only=True)
    """The work that it can cause at most, and where that is done."""


class Family(Protocol):
    """A module with rows: `COMMANDS`, and `CAPABILITIES` that belong to no command of it."""

    @property
    def COMMANDS(self) -> Sequence[CommandSpec]:  # noqa: N802 - a constant of the module
        """The rows."""


@frozen
class Table:
    """All rows."""

    commands: Mapping[bytes, CommandSpec]
    capabilities: Sequence[Capability]
    """In the order of CAPA."""


def build_table(families: Iterable[Family]) -> Table:
    """The rows of all families. Raises: DuplicateCommand."""
    commands: list[CommandSpec] = []
    capabilities: list[Capability] = []
    for family in families:
        commands += family.COMMANDS
        capabilities += getattr(family, "CAPABILITIES", ())
        capabilities += [each for spec in family.COMMANDS for each in spec.capabilities]
    return Table(index_rows(commands), tuple(capabilities))


def no_argument(argument: bytes) -> None:
    """Raises: BadSyntax where a command without arguments has one."""
    if argument:
        raise BadSyntax("no argument is expected")


def describe(table: Table) -> list[tuple[str, str, str, str, str]]:
    """For each command: its name, states, capabilities, reference, and its file."""
    return [
        (
            name.decode("ascii"),
            ", ".join(sorted(state.name.lower() for state in spec.states)),
            " ".join(capability.keyword for capability in spec.capabilities),
            spec.reference,
            source_path(spec.run),
        )
        for name, spec in sorted(table.commands.items())
    ]
