"""The cost model of a command or a path: a field of its row, printed in docs/commands.md."""

from __future__ import annotations

from typing import Final

from attrs import frozen

REACTOR: Final = "reactor"
ACCOUNT: Final = "account's thread"
BOTH: Final = "account's thread; the answer is written by the reactor"
HASHING: Final = "hashing process"


@frozen
class Cost:
    """The work that one request can cause at most, and where it is done."""

    linear_in: str
    """The quantities that the work is linear in; empty where a constant and the length of the line bound it."""
    runs: str = REACTOR
    """The thread or process that does it."""

    @property
    def is_constant(self) -> bool:
        """Is the work bounded by a constant and the length of the line?"""
        return not self.linear_in

    @property
    def model(self) -> str:
        """`linear_in` in words, also for a constant."""
        return self.linear_in or "constant"


CONSTANT: Final = Cost("")
READING: Final = Cost(
    "files that are new since the mailbox was last read",
    "account's thread; from 20,000 new files on, a process of its own",
)
CHANGES: Final = Cost("messages that others have changed since the last answer", BOTH)
