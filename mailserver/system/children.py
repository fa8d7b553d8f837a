"""Child processes that do what would hold up a server process, as those who use them see them: no Twisted here.

Children are started by exec, never by fork of the server. Whoever makes a pool of them passes the ways to start a
process (`net.ipc.child_processes`), to wait, and to set a timer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Child(Protocol):
    """A started process, as its pool uses it."""

    def write(self, data: bytes) -> None:
        """Queue bytes for its standard input; dropped once it is dead."""

    def kill(self) -> None:
        """End it at once; nothing happens if it is dead. `ChildEvents.ended` is still called."""


class ChildEvents(Protocol):
    """What the spawner tells the pool about one child, on the reactor's thread, never from within `Spawner` itself."""

    def received(self, data: bytes) -> None:
        """It wrote these bytes to its standard output."""

    def ended(self, reason: str) -> None:
        """It is dead. Called once."""


class Spawner(Protocol):
    """The way to start a process with pipes at its standard input and output; its standard error is the server's."""

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], events: ChildEvents) -> Child:
        """Start `arguments[0]` by exec. Raises: OSError."""


class Waiting(Protocol):
    """Something that a coroutine awaits until `callback` is called, once. Twisted's Deferred is one."""

    def callback(self, result: Any) -> None:
        """Let whoever awaits go on with `result`. Harmless after the waiting was cancelled."""

    def __await__(self) -> Generator[Any, Any, Any]: ...


class Timer(Protocol):
    """A call that is to come. What Twisted's callLater returns is one."""

    def cancel(self) -> None:
        """Do not make the call; only valid before it was made."""


def module_command(module: str) -> tuple[str, ...]:
    """What runs a module of this package.

    -P: the working directory, which may be anybody's, is not among the modules of who hears passwords and reads mail.
    """
    return sys.executable, "-P", "-m", module


def module_environment() -> dict[str, str]:
    """The server's own, and a path on which the child finds this very package, wherever it is started from."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
