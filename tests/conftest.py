"""What all tests have in common."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests import compiling, scheduling
from tests.server import kill_all, remove_templates

# Hundreds of processes import the same modules: compiled once, they start in half the time.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""
sys.dont_write_bytecode = False

PROTOCOLS = ("tests/imap/", "tests/pop3/", "tests/smtp/")
"""Folders of tests that sync no file."""

# The same examples in each run, and as long a time for one as it takes: no test fails for what was drawn this once, or
# for what else the machine does. `make soak` draws others.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("others", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """The processes of `-n auto`."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else scheduling.process_count()


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Modules stay whole, where the command line asks for no other distribution."""
    return scheduling.ModuleScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """In several processes, each compiles a part of the modules."""
    # Nothing of what is made here is garbage.
    gc.disable()
    given = getattr(session.config, "workerinput", None)
    if given is not None:
        compiling.share_work(session.config, int(given["workerid"].removeprefix("gw")), int(given["workercount"]))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes, waiting and computing modules alternate."""
    if hasattr(config, "workerinput"):
        places = {unit: number for number, unit in enumerate(scheduling.order(item.nodeid for item in items))}
        items.sort(key=lambda item: places[scheduling.unit(item.nodeid)])


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Ten thousand tests are there to the end: no collection of garbage looks through them again."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """No server outlives the tests, also where one has failed with its server running."""
    kill_all()
    remove_templates()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A thread that a failed test has left somewhere is not waited for without end."""
    # A process of pytest-xdist waits here for the others, which end it.
    if not hasattr(config, "workerinput"):
        faulthandler.dump_traceback_later(120, exit=True, file=2)


@pytest.fixture(autouse=True, scope="module")
def no_sync(request: pytest.FixtureRequest) -> Iterator[None]:
    """In tests of protocols nothing waits for the disk: what a crash leaves is the subject of others."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.nodeid.startswith(PROTOCOLS):
            for name in ("fsync", "fdatasync"):
                patch.setattr(os, name, lambda _descriptor: None)
        yield


@pytest.fixture
def low_port() -> int:
    """A port below 1024 that nobody has, for those who are root; by chance, as other processes look for one, too."""
    for port in random.sample(range(512, 1024), 512):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port from 512 to 1023 is free")
