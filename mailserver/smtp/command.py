"""The rows of SMTP's tables: a command, an extension (RFC 5321 2.2), a parameter of MAIL or RCPT.

Each row stands in the module that does it. `build_table` joins those of one role.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import field, frozen

from mailserver.errors import BadSyntax
from mailserver.session.command_table import DuplicateCommand, index_rows, source_path
from mailserver.session.cost import Cost


class Role(enum.Enum):
    """The service that a session offers."""

    SUBMISSION = "submission"
    """RFC 6409."""
    LMTP = "LMTP"
    """RFC 2033."""


BOTH_ROLES: Final = frozenset(Role)
SUBMISSION_ONLY: Final = frozenset([Role.SUBMISSION])
LMTP_ONLY: Final = frozenset([Role.LMTP])


@frozen
class CommandSpec:
    """A command. `run` takes the session, of the kind that its roles have, and the octets behind the name and its space.

    It reads them to the end, writes the reply, and raises a MailError for any other.
    """

    name: bytes
    run: Callable[[Any, bytes], Awaitable[None]]
    reference: str
    cost: Cost = field(kw_only=True)
    """The work that it can cause at most, and where that is done."""
    before_tls: bool = False
    """Allowed where TLS must be started first (RFC 3207 4)."""
    roles: frozenset[Role] = BOTH_ROLES


@frozen
class Parameter:
    """A parameter of MAIL or RCPT (RFC 5321 4.1.1.11)."""

    keyword: str
    """In upper case."""
    parse: Callable[[Any, str | None], object]
    """Takes the session and the value, None without one; returns its meaning. Raises: MailError."""


@frozen
class Extension:
    """An ESMTP extension: its line in the reply to EHLO or LHLO, its parameters, its commands."""

    keyword: str
    reference: str
    offer: Callable[[Any], str | None] | None = None
    """The line for this session now, None where the extension is not offered; the keyword alone where this is None."""
    mail: Sequence[Parameter] = ()
    rcpt: Sequence[Parameter] = ()
    commands: Sequence[CommandSpec] = ()
    roles: frozenset[Role] = BOTH_ROLES
    defined_in: str = field(kw_only=True)
    """The module with the row: `__name__` there."""

    def line(self, session: object) -> str | None:
        """The line for a session."""
        return self.keyword if self.offer is None else self.offer(session)


class Family(Protocol):
    """A module with rows: `COMMANDS`, `EXTENSIONS`, or both."""

    __name__: str


@frozen
class Table:
    """All rows of one role."""

    commands: Mapping[bytes, CommandSpec]
    extensions: Sequence[Extension]
    """In the order of EHLO."""
    mail: Mapping[str, Parameter]
    """The parameters of MAIL by keyword."""
    rcpt: Mapping[str, Parameter]


def build_table(families: Iterable[Family], role: Role) -> Table:
    """The rows of the families' `COMMANDS` and `EXTENSIONS` that belong to the role. Raises: DuplicateCommand."""
    commands: list[CommandSpec] = []
    extensions: list[Extension] = []
    for family in families:
        found = [row for row in getattr(family, "EXTENSIONS", ()) if role in row.roles]
        extensions += found
        commands += getattr(family, "COMMANDS", ())
        commands += [spec for extension in found for spec in extension.commands]
    return Table(
        index_rows(spec for spec in commands if role in spec.roles),
        tuple(extensions),
        _index_parameters(parameter for extension in extensions for parameter in extension.mail),
        _index_parameters(parameter for extension in extensions for parameter in extension.rcpt),
    )


def _index_parameters(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for parameter in parameters:
        if parameter.keyword in found:
            raise DuplicateCommand(parameter.keyword)
        found[parameter.keyword] = parameter
    return found


def no_argument(word: str, argument: bytes) -> None:
    """Raises: BadSyntax where a command without arguments has one."""
    if argument:
        raise BadSyntax(f"{word} takes no argument")


def describe_commands(table: Table) -> list[tuple[str, str, str, str]]:
    """For each command: its name, whether it is allowed before a required TLS, its reference, its file."""
    return [
        (name.decode("ascii"), "yes" if spec.before_tls else "no", spec.reference, source_path(spec.run))
        for name, spec in sorted(table.commands.items())
    ]


def describe_extensions(table: Table) -> list[tuple[str, str, str, str, str]]:
    """For each extension: its keyword, its parameters of MAIL and RCPT, its commands, its reference, its file."""
    return [
        (
            extension.keyword,
            " ".join(f"{word} {each.keyword}" for word, rows in _parameters(extension) for each in rows),
            " ".join(spec.name.decode("ascii") for spec in extension.commands),
            extension.reference,
            extension.defined_in.removeprefix("mailserver.").replace(".", "/") + ".py",
        )
        for extension in table.extensions
    ]


def _parameters(extension: Extension) -> tuple[tuple[str, Sequence[Parameter]], ...]:
    return ("MAIL", extension.mail), ("RCPT", extension.rcpt)
