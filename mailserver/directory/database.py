"""The interface of the databases that can hold a directory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

Value = str | int | None
Row = tuple[Value, ...]


class Database(Protocol):
    """One open database. Each call may raise DirectoryUnavailable. Not thread-safe."""

    def rows(self, statement: str, **values: Value) -> list[Row]:
        """Run a statement of `statements`, to its end, and return its rows."""

    def change(self, statement: str, **values: Value) -> int:
        """Run a statement that changes rows, and return their number."""

    def writing(self) -> AbstractContextManager[None]:
        """A transaction that other writers wait for: all of it is kept, synced to the disk, or nothing."""

    def reading(self) -> AbstractContextManager[None]:
        """A transaction whose statements see the rows as they are at its first one. No writer waits for it."""

    def state(self) -> int:
        """A number that is another one after a transaction of somebody else."""

    def is_replaced(self) -> bool:
        """Is another database at the same place now?"""

    def close(self) -> None:
        """Close it."""
