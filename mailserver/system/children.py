"""Interfaces of child processes for long work, without Twisted, and how a module of this package is run as one.

Children are started by exec, never by a fork of the server. A pool of them is given the functions to start a process
(`net.ipc.child_processes`), to wait, and to set a timer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Child(Protocol):
    """A started process, as a pool uses it."""

    def write(self, data: bytes) -> None:
        """Queue bytes for its standard input; dropped once it is dead."""

    def kill(self) -> None:
        """Kill it, unless it is dead. `ChildEvents.ended` is still called."""


class ChildEvents(Protocol):
    """Callbacks for one child, called on the reactor's thread and never by `Spawner` itself."""

    def received(self, data: bytes) -> None:
        """Receive bytes from its standard output."""

    def ended(self, reason: str) -> None:
        """Handle its end. Called once."""


class Spawner(Protocol):
    """Starts processes with pipes at their standard input and output; the standard error is the server's."""

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], events: ChildEvents) -> Child:
        """Start `arguments[0]` by exec. Raises: OSError."""


class Waiting(Protocol):
    """An awaitable that waits until `callback` is called, once. Twisted's Deferred is one."""

    def callback(self, result: Any) -> None:
        """Resume the coroutine with `result`. Harmless after the wait was cancelled."""

    def __await__(self) -> Generator[Any, Any, Any]: ...


class Timer(Protocol):
    """A delayed call. Twisted's IDelayedCall is one."""

    def cancel(self) -> None:
        """Cancel the call; only valid before it was made."""


def module_command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of this package.

    -P: Python does not look for modules in the working directory, which may be writable by others.
    """
    return sys.executable, "-P", "-m", module


def module_environment() -> dict[str, str]:
    """Return this process's environment, with a PYTHONPATH on which the child finds the same package."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
