"""The row of a command, which stands in the module that does it. `build_table` joins the rows."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from attrs import field, frozen

from mailserver.config.model import Imap
from mailserver.errors import MailError, NoSuchMailbox
from mailserver.imap.capabilities import Capability
from mailserver.imap.wire.reader import Reader
from mailserver.session.command_table import DuplicateCommand, source_path
from mailserver.session.cost import Cost


class State(enum.Flag):
    """Session states (RFC 3501 3), as a command's row names those it is allowed in."""

    NOT_AUTHENTICATED = enum.auto()
    AUTHENTICATED = enum.auto()
    SELECTED = enum.auto()
    LOGOUT = enum.auto()

    @property
    def refusal(self) -> str:
        """The answer to a command that is not allowed in this state."""
        if self is State.NOT_AUTHENTICATED:
            return "log in first"
        if self is State.AUTHENTICATED:
            return "not allowed now: select a mailbox first, or you are logged in already"
        return "not allowed while logged in"


LOGGED_IN = State.AUTHENTICATED | State.SELECTED
ANY = LOGGED_IN | State.NOT_AUTHENTICATED


class Command(NamedTuple):
    """One command as received, ready to be parsed."""

    tag: str
    name: str
    """In capitals, without UID."""
    uid: bool
    """It was given as `UID name`."""
    reader: Reader
    """Positioned behind the name: at the space, or at the end."""


Run = Callable[[Any, Command], Awaitable[str | None]]
"""Takes the session and the command."""


@frozen
class CommandSpec:
    """A command. `run` parses it to its end, calls the store and writes the untagged responses.

    It returns the text of the tagged OK, which may begin with a response code in brackets, or None for "NAME completed".
    It raises MailErrors.
    """

    name: str
    states: State
    run: Run
    uses_sequence_numbers: bool = False
    """No EXPUNGE may be sent at its end, unless it came as a UID command (RFC 3501 7.4.1)."""
    capabilities: tuple[Capability, ...] = ()
    """Those that promise the command, or change it."""
    reference: str = "RFC 3501"
    cost: Cost = field(kw_only=True)
    """The work that it can cause at most, and where that is done."""
    uid_form: bool = False
    """`UID name` exists."""
    plain_form: bool = True
    """`name` without UID exists."""
    numberless: bool = False
    """`name` neither takes nor returns message numbers, although there is a UID form."""
    max_literal: int = 65536
    """Octets that all its literals may have together, unless streamed."""
    literal8: bool = False
    """Its literals may be binary (RFC 4466 4)."""
    refuse_literal: Callable[[Imap], MailError] | None = None
    """Takes the configuration; returns the refusal of literals beyond `max_literal`. None: TooBig."""
    streams: Callable[[Sequence[bytes]], bool] | None = None
    """Takes the text and literals before an announced literal; True leaves that literal to `run`."""
    precondition: Callable[[Any], None] | None = None
    """Takes the session; raises the MailError that refuses the command before any of its literals is asked for."""
    exposed: Callable[[Any, Reader], None] | None = None
    """Called with the part of the command that the client has sent without being asked, when its precondition has refused it.

    It may raise BadSyntax.
    """
    allowed: int = field(init=False, repr=False)
    """`states` as a number: the operators of `enum` take longer than the rest of a NOOP."""
    completed: bytes = field(init=False, repr=False)
    """The text of its tagged OK where `run` has none; `UID ` comes before it in that form."""

    @completed.default
    def _completed(self) -> bytes:
        return f"{self.name} completed".encode("ascii")

    @allowed.default
    def _allowed(self) -> int:
        return self.states.value


class TryCreate(NoSuchMailbox):
    """The target of APPEND, COPY or MOVE does not exist, but could be created (RFC 3501 7.1 TRYCREATE)."""

    imap_code = "TRYCREATE"


Table = Mapping[str, CommandSpec]


def build_table(families: Iterable[Iterable[CommandSpec]]) -> Table:
    """Rows by name, "UID name" for the UID forms. Raises: DuplicateCommand."""
    table: dict[str, CommandSpec] = {}
    for spec in (spec for family in families for spec in family):
        forms = ([spec.name] if spec.plain_form else []) + ([f"UID {spec.name}"] if spec.uid_form else [])
        for form in forms:
            if form in table:
                raise DuplicateCommand(form)
            table[form] = spec
    return table


def one_word_forms(table: Table) -> Mapping[bytes, str]:
    """The forms without UID by their octets in a command line, as clients mostly write them: NOOP, noop."""
    forms = [form for form in table if " " not in form]
    return {written.encode("ascii"): form for form in forms for written in (form, form.lower())}


def describe(table: Table) -> list[tuple[str, str, str, str, str]]:
    """For each form: its name, states, capabilities, reference, and its file ("imap/commands/idle.py")."""
    rows = []
    for form in sorted(table):
        spec = table[form]
        states = "any" if spec.states == ANY else "logged in" if spec.states == LOGGED_IN else _words(spec.states)
        rows.append(
            (form, states, " ".join(each.token for each in spec.capabilities), spec.reference, source_path(spec.run))
        )
    return rows


def _words(states: State) -> str:
    return ", ".join(state.name.lower().replace("_", " ") for state in State if state in states and state.name)
