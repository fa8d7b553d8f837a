"""The master's side of a worker: what it says, and its end."""

from __future__ import annotations

import os
import socket
import subprocess

from mailserver.net.ipc.frames import send_blocking, to_json
from mailserver.net.workers.zygote_process import ProcessEnd, WorkerProcess
from tests.workers.test_frames import Reactor


def test_what_a_worker_says_last_is_heard_before_its_end() -> None:
    """The kernel may tell of the process first."""
    reactor, told = Reactor(), []
    near, far = socket.socketpair()
    with far, subprocess.Popen(["true"]) as child:
        process = WorkerProcess(reactor, near, told.append, lambda: told.append("ended"))
        process.watch(os.pidfd_open(child.pid))
        (end,) = (each for each in reactor.readers if isinstance(each, ProcessEnd))
        child.wait(60)
        send_blocking(far, to_json({"seen": 1}))
        end.doRead()
    assert told == [{"seen": 1}, "ended"]
    assert near.fileno() == end.fileno() == -1
    assert not reactor.readers
