"""The start of the zygote, by exec: its own half second of loading may then pass beside that of the master.

Light to load, and without Twisted, as it comes before whatever a master takes long to load.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

from attrs import frozen

from mailserver.system.children import module_command, module_environment


@frozen
class StartedZygote:
    """A process that waits on its line for what it begins with; it ends when that is closed."""

    pid: int
    line: socket.socket

    def end(self) -> None:
        """There is nothing for it to begin with."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.line.close()


def start_zygote(output: int | None = None) -> StartedZygote:
    """Start it, with `output` as its standard output and error, else ours; its input is empty. Raises: OSError."""
    environment = module_environment()
    # systemd hears from the master alone.
    environment.pop("NOTIFY_SOCKET", None)
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    if output is not None:
        actions += [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.set_inheritable(True)
        arguments = [*module_command("mailserver.zygote"), str(theirs.fileno())]
        try:
            pid = os.posix_spawn(sys.executable, arguments, environment, file_actions=actions)
        except OSError:
            ours.close()
            raise
    return StartedZygote(pid, ours)
