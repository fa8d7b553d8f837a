"""What the master does about a zygote, without processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from mailserver.net.ipc.master_messages import ForkRequest
from mailserver.net.workers.supervisor import SILENCE
from mailserver.net.workers.zygote_watch import EARLY, ZygoteWatch

ORPHANS = """
import ctypes, os, subprocess, sys, time
from twisted.internet.task import Clock
from mailserver.net.workers.zygote_watch import ZygoteWatch
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
watch = ZygoteWatch(Clock(), None, list, None)
command = ["sh", "-c", "sleep 0.1 & echo $!; exit 0"]
orphan = int(subprocess.run(command, stdout=subprocess.PIPE, start_new_session=True).stdout)
own = subprocess.Popen(["sh", "-c", "exit 3"], start_new_session=True)
same = subprocess.Popen(["sh", "-c", "exit 4"])
end = time.monotonic() + 60
while time.monotonic() < end:
    watch.reap()
    try:
        os.kill(orphan, 0)
    except ProcessLookupError:
        break
    time.sleep(0.01)
else:
    sys.exit("the orphan stays a zombie")
for child in (own, same):
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    watch.reap()
    print(child.wait())
"""


def test_an_orphan_of_another_session_is_waited_for_and_no_child_of_another_service() -> None:
    """As that of a program that was killed with its children."""
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("3\n4\n", "")


class Zygote:
    """As much of a ZygoteProcess as the watch needs of one."""

    pid = (1 << 22) + 1
    """No process has it (PID_MAX_LIMIT, proc(5))."""
    patience = SILENCE

    def __init__(self, now: float, ended: Callable[[Any], None]) -> None:
        self.started = self.heard = now
        self.ended = ended
        self.killed = self.retired = False

    def begin(self, frames: object) -> None:
        pass

    begin_later = begin

    def retire(self) -> None:
        self.retired = True

    def kill(self) -> None:
        self.killed = True


class World:
    """A watch whose zygotes cannot be started while `refusing` has something to say."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.attempts: list[float] = []
        self.started: list[Zygote] = []
        self.refusing = 0
        self.renewed = 0
        self.watch = ZygoteWatch(self.clock, cast("Any", self.start), list, self.renew)
        self.watch.begin()

    def start(self, ended: Callable[[Any], None]) -> Zygote:
        self.attempts.append(self.clock.seconds())
        if self.refusing:
            self.refusing -= 1
            raise BlockingIOError("Resource temporarily unavailable")
        self.started.append(Zygote(self.clock.seconds(), ended))
        return self.started[-1]

    def renew(self) -> None:
        self.renewed += 1

    def live(self, seconds: float) -> None:
        for _ in range(int(2 * seconds)):
            self.clock.advance(0.5)
            self.watch.check()


def test_where_no_zygote_can_be_started_it_is_tried_again() -> None:
    """A machine without memory, say: the workers serve on, and those that end must be replaced one day."""
    world = World()
    world.refusing = 3
    world.clock.advance(EARLY + 1)
    world.started[0].ended(world.started[0])
    for _ in range(200):
        world.clock.advance(0.5)
    assert len(world.started) == 2, "and only one more"
    assert world.renewed == 1
    tries = world.attempts[1:]
    assert tries[0] == pytest.approx(EARLY + 1, abs=1)
    assert len(tries) == 4
    waits = [later - before for before, later in pairwise(tries)]
    assert waits == pytest.approx([1, 2, 4], abs=0.6), "each time for longer"


def test_one_that_stands_still_is_killed_once_and_replaced_at_its_end() -> None:
    world = World()
    world.live(SILENCE - 1)
    assert not world.started[0].killed
    world.live(2)
    assert world.started[0].killed
    assert len(world.started) == 1
    world.started[0].ended(world.started[0])
    world.clock.advance(0)
    assert len(world.started) == 2
    assert world.renewed == 1


def test_a_master_that_stood_still_gives_it_time_to_be_heard() -> None:
    world = World()
    world.clock.advance(10 * SILENCE)
    world.watch.check()
    assert not world.started[0].killed


def test_a_worker_that_is_asked_for_between_two_is_begun_again() -> None:
    world = World()
    world.started[0].ended(world.started[0])
    near, far = socket.socketpair()
    with near:
        near.settimeout(60)
        world.watch.fork(ForkRequest(1, 0, 0, ()), far)
        assert near.recv(1) == b"", "the end of its line says so"


def test_the_one_before_retires_and_its_end_is_no_fault() -> None:
    world = World()
    world.watch.renew()
    first, second = world.started
    assert (first.retired, second.retired) == (True, False)
    first.ended(first)
    world.clock.advance(60)
    assert len(world.started) == 2


def test_the_ends_of_other_children_are_left_to_whoever_started_them() -> None:
    """Another service in the same twistd waits for its own children."""
    true = shutil.which("true")
    assert true is not None
    world = World()
    zygote, other = (os.posix_spawn(true, ["true"], {}, setpgroup=0) for _ in range(2))
    world.watch._groups = {zygote}
    for child in (zygote, other):
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    world.watch.reap()
    assert os.waitpid(other, os.WNOHANG) == (other, 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(zygote, os.WNOHANG)
    assert not world.watch._groups, "nothing of it is left"


def test_at_the_end_none_is_replaced() -> None:
    world = World()
    world.watch.retire()
    assert world.started[0].retired
    world.started[0].ended(world.started[0])
    world.clock.advance(60)
    assert len(world.started) == 1
