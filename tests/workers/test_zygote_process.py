"""The master's side of a worker: what it says, and its end."""

from __future__ import annotations

import os
import socket
import subprocess

from mailserver.net.ipc.frames import send_blocking
from mailserver.net.ipc.worker_messages import WorkerReady, encode_worker_message
from mailserver.net.workers.zygote_process import ProcessEnd, WorkerProcess
from tests.workers.test_frames import Reactor


def test_what_a_worker_says_last_is_heard_before_its_end() -> None:
    """The kernel may tell of the process first."""
    reactor = Reactor()
    told: list[object] = []
    near, far = socket.socketpair()
    with far, subprocess.Popen(["true"]) as child:
        process = WorkerProcess(reactor, near, told.append, told.append, lambda: told.append("ended"))
        process.watch(os.pidfd_open(child.pid))
        (end,) = (each for each in reactor.readers if isinstance(each, ProcessEnd))
        child.wait(60)
        send_blocking(far, encode_worker_message(WorkerReady()))
        end.doRead()
    assert told == [WorkerReady(), "ended"]
    assert near.fileno() == end.fileno() == -1
    assert not reactor.readers


def test_a_worker_is_rejected_for_a_malformed_message_and_for_descriptors() -> None:
    reactor = Reactor()
    received: list[object] = []
    rejected: list[str] = []
    near, far = socket.socketpair()
    with far:
        process = WorkerProcess(reactor, near, received.append, rejected.append, lambda: None)
        [frames] = reactor.readers
        for body, descriptors in (
            (b"\x80pickle", []),
            (b'{"type":"heartbeat","sessions":1,"memory":true,"event_counters":[]}', []),
            (encode_worker_message(WorkerReady()), [far.fileno()]),
            (encode_worker_message(WorkerReady()), []),
        ):
            send_blocking(far, body, descriptors)
            frames.doRead()  # type: ignore[attr-defined]
        assert rejected == [
            "it is not JSON",
            "invalid value for type, expected int @ $.memory",
            "there are descriptors beside it",
        ]
        assert received == [WorkerReady()]
        process._socket.close()
