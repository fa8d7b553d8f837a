"""Whose process is it that a pidfd names?"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from mailserver.net.processes import is_child


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
