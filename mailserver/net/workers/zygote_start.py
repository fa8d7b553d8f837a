"""Start the zygote by exec, so that it loads its modules while the master loads others; each takes half a second.

This module imports little and no Twisted, as the zygote is started before the master imports the rest.
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
    """A zygote that waits for its ZygoteInit; it ends when the socket is closed."""

    pid: int
    connection: socket.socket

    def end(self) -> None:
        """Kill it: there is nothing to serve."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.connection.close()


def start_zygote(output: int | None = None) -> StartedZygote:
    """Start it with `output` as its standard output and error, or with those of this process. Raises: OSError.

    It leads a process group of its own, by which the master knows the processes that it must wait for.
    """
    environment = module_environment()
    # The master alone notifies systemd.
    environment.pop("NOTIFY_SOCKET", None)
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    if output is not None:
        actions += [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.set_inheritable(True)
        arguments = [*module_command("mailserver.zygote"), str(theirs.fileno())]
        try:
            pid = os.posix_spawn(sys.executable, arguments, environment, file_actions=actions, setpgroup=0)
        except OSError:
            ours.close()
            raise
    return StartedZygote(pid, ours)
