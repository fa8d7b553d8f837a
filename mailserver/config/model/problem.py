"""A problem of a file."""

from __future__ import annotations

from attrs import frozen


@frozen
class Problem:
    """One problem, in one line for the administrator."""

    file: str
    place: str
    """Table and key, "[listener 2] port"; empty for the whole file."""
    value: str
    """The value in the file; empty if a key is missing. Never a secret."""
    reason: str
    """The fault, and how to correct it."""
    near: str = ""
    """The key or word probably meant."""
    warning: bool = False
    """The server starts nevertheless."""

    def __str__(self) -> str:
        where = f"{self.file} {self.place}".rstrip()
        value = f" = {self.value}" if self.value else ""
        near = f"; did you mean {self.near!r}?" if self.near else ""
        kind = "warning: " if self.warning else ""
        line = f"{where}{value}: {kind}{self.reason}{near}"
        # Parts of it come from the file: control characters must not reach the terminal.
        return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)
