"""Distribution of the tests among the processes of pytest-xdist (`pytest -n auto`).

A test module goes to one process as a whole, as its tests share servers. Modules of SPLIT are the exception: each of
their tests starts what it needs, and some take long, so that each test goes by itself. Folders whose tests wait for
clients and servers alternate with those whose tests compute, so that both processors have work all the while.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

LONGEST = ("tests/interop/test_testssl.py", "tests/live/test_memory.py")
"""Modules that take minutes on one processor: before all others."""
WAITING = ("workers", "interop", "live", "hostile", "oracle")
"""Folders of tests/ whose tests wait more than they compute, in the order of their start."""
COMPUTING = ("disk", "stress", "store", "auth", "upgrade", "tls")
"""Folders of tests/ with long tests that compute, in the order of their start; the others follow."""
WAITING_SHARE = 0.7
"""The part of the run in which the waiting folders start: none of them is left alone at the end."""
MEMORY = 600 * 1024 * 1024
"""Octets of memory for each process of tests, with the servers that it starts."""
SPLIT = (
    "tests/disk/",
    "tests/store/test_faults.py",
    "tests/store/test_maildir_full_disk.py",
    "tests/workers/test_certificates.py",
    "tests/workers/test_faults.py",
    "tests/workers/test_kill.py",
    "tests/workers/test_login_floods.py",
    "tests/workers/test_reload.py",
    "tests/workers/test_start.py",
    "tests/workers/test_user.py",
)
"""Modules, and folders of modules, of which each test goes to a process by itself."""


def process_count() -> int:
    """The number for `-n auto`: three for each processor, since many tests wait, where there is the memory for them."""
    processors = len(os.sched_getaffinity(0))
    fitting = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEMORY
    return max(processors, min(3 * processors, fitting))


def unit(nodeid: str) -> str:
    """The tests that go to one process: those of a module, or one test alone."""
    return nodeid if nodeid.startswith(SPLIT) else nodeid.partition("::")[0]


def folder(nodeid: str) -> str:
    """The folder of tests/ that a test is in, or its module."""
    return nodeid.removeprefix("tests/").partition("/")[0]


def place(nodeid: str, folders: Sequence[str]) -> int:
    """The place of a test's folder among these; behind them for any other."""
    return folders.index(folder(nodeid)) if folder(nodeid) in folders else len(folders)


def order(nodeids: Iterable[str]) -> list[str]:
    """The units of these tests in the order of their start."""
    units = list(dict.fromkeys(map(unit, nodeids)))
    longest = [each for each in units if each.startswith(LONGEST)]
    waiting = [each for each in units if each not in longest and folder(each) in WAITING]
    computing = [each for each in units if each not in longest and folder(each) not in WAITING]
    waiting.sort(key=lambda each: place(each, WAITING))
    computing.sort(key=lambda each: place(each, COMPUTING))
    starts = {each: WAITING_SHARE * number / len(waiting) for number, each in enumerate(waiting)}
    starts |= {each: number / len(computing) for number, each in enumerate(computing)}
    return longest + sorted(starts, key=starts.__getitem__)


class ModuleScheduling(LoadScopeScheduling):
    """Send units in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        # Else the modules with most tests would come first, and those with few long ones last.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
