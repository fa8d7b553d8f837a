"""Whose process is it that a pidfd names?"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator

import pytest

from mailserver.net.ipc.child_processes import is_child, kill_as


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_only_a_pidfd_of_that_very_child_is_one(child: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(child.pid)
    assert is_child(pidfd, child.pid, {os.getpid()})
    assert not is_child(pidfd, child.pid, {1}), "another's child"
    assert not is_child(pidfd, os.getpid(), {os.getpid()}), "another number"
    os.close(pidfd)
    parent = os.pidfd_open(os.getppid())
    assert not is_child(parent, os.getppid(), {os.getpid()}), "the test's own parent"
    os.close(parent)
    reading, writing = os.pipe()
    assert not is_child(reading, child.pid, {os.getpid()}), "no pidfd at all"
    os.close(reading)
    os.close(writing)


def test_one_that_has_ended_may_be_told_late(child: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(child.pid)
    child.kill()
    child.wait()
    assert is_child(pidfd, child.pid, {os.getpid()})
    os.close(pidfd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root kills as another user")
def test_as_a_user_only_that_users_processes_are_killed() -> None:
    """Whatever /proc shows: a process that was taken over may pass any pidfd for that of its child."""
    uid = pwd.getpwnam("nobody").pw_uid
    for owner in (0, uid):
        with subprocess.Popen(["sleep", "60"], user=owner) as process:
            pidfd = os.pidfd_open(process.pid)
            if owner:
                kill_as(pidfd, uid)
                assert process.wait(20) == -signal.SIGKILL
                with pytest.raises(ProcessLookupError):
                    kill_as(pidfd, uid)
            else:
                with pytest.raises(PermissionError):
                    kill_as(pidfd, uid)
                assert process.poll() is None
                kill_as(pidfd, None)
            os.close(pidfd)
    assert os.getresuid() == (0, 0, 0)
    assert os.access("/proc/1/environ", os.R_OK), "with all rights of before"
