"""Distribution of the tests among the processes of pytest-xdist (`pytest -n auto`).

A test module goes to one process as a whole, as its tests share servers. Modules of SPLIT are the exception: each of
their tests starts what it needs, and some take long, so that each test goes by itself. Folders that start real servers
come first: the many short modules behind them fill the processes evenly to the end.
"""

from __future__ import annotations

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

LONGEST = ("tests/interop/test_testssl.py", "tests/live/test_memory.py")
"""Modules that take minutes on one processor: before all others."""
FIRST = ("workers", "interop", "live", "hostile", "disk", "stress", "oracle", "store", "auth")
"""Folders of tests/ in the order of their start; the others follow."""
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
    """The number for `-n auto`: two for each processor, since many tests wait more than they compute."""
    return 2 * len(os.sched_getaffinity(0))


def unit(nodeid: str) -> str:
    """The tests that go to one process: those of a module, or one test alone."""
    return nodeid if nodeid.startswith(SPLIT) else nodeid.partition("::")[0]


def rank(nodeid: str) -> int:
    """The place of a test in the order of starting."""
    if nodeid.startswith(LONGEST):
        return -1
    folder = nodeid.removeprefix("tests/").partition("/")[0]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)


class ModuleScheduling(LoadScopeScheduling):
    """Send units in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        # Else the modules with most tests would come first, and those with few long ones last.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
