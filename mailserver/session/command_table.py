"""Command tables: what the rows of IMAP, POP3 and SMTP have in common, and how they are printed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar


class CommandRow(Protocol):
    """A row of a line protocol's command table."""

    @property
    def name(self) -> bytes:
        """The command's word, in upper case."""

    @property
    def run(self) -> Callable[[Any, bytes], Awaitable[None]]:
        """Takes the session, and the octets behind the command's word and its space."""


Row = TypeVar("Row", bound=CommandRow)


class DuplicateCommand(Exception):
    """Two rows claim one name."""


def index_rows(rows: Iterable[Row]) -> dict[bytes, Row]:
    """Rows by name. Raises: DuplicateCommand."""
    table: dict[bytes, Row] = {}
    for row in rows:
        if row.name in table:
            raise DuplicateCommand(row.name.decode("ascii"))
        table[row.name] = row
    return table


def source_path(run: Callable[..., object]) -> str:
    """The file of a function, below `mailserver`: "imap/commands/idle.py"."""
    module = inspect.getmodule(run)
    return module_path(module.__name__ if module else "")


def module_path(name: str) -> str:
    """The file of a module, below `mailserver`."""
    return name.replace("mailserver.", "").replace(".", "/") + ".py"


def align(rows: Sequence[Sequence[str]]) -> str:
    """The rows for a terminal, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) + "\n"
        for row in rows
    )
