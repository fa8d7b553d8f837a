"""Are the crash and power-cut tests worth anything? Each mutant of the store must break a promise that they see.

A mutant leaves out a sync or an intent, or swaps two steps, in one command; the store runs with it in a child, and the
same checks as in test_powercut must find it out. Mutants that change nothing that can be seen are not here: a uidlist
line written after the rename, for one, since a file without a line was never acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from attrs import field, frozen

from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.home import intent
from tests.store.crash import run_workload
from tests.store.disk import scratch
from tests.store.powercut import violations
from tests.store.workload import STEPS, expectations

StepName = Callable[[], str]


@frozen
class Mutant:
    """What is done to the store in the child, and in which steps the cuts are tried."""

    name: str
    steps: tuple[str, ...]
    spoil: Callable[[StepName, set[str]], None] = field(eq=False, repr=False)


def wrap(module: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace module.name by around(original, ...)."""
    original = getattr(module, name)
    setattr(module, name, lambda *args, **named: around(original, *args, **named))


def drop(name: str, where: Callable[[str], bool] = lambda _path: True) -> Callable[[StepName, set[str]], None]:
    """Leave out a primitive on paths that `where` picks."""

    def spoil(step: StepName, steps: set[str]) -> None:
        def around(original: Callable[..., Any], target: Any, *args: Any, **named: Any) -> Any:
            path = safeio.path_of(target) if isinstance(target, int) else target
            return None if step() in steps and where(path) else original(target, *args, **named)

        wrap(safeio, name, around)

    return spoil


class Forgetful:
    """Passes on every change but those of one operation."""

    def __init__(self, recorder: Any, operation: str) -> None:
        self._recorder, self._operation = recorder, operation

    def record(self, change: safeio.Change) -> None:
        if change.operation != self._operation:
            self._recorder.record(change)


def inside(name: str, operation: str) -> Callable[[StepName, set[str]], None]:
    """Within the composed primitive `name` the operation does not reach the disk."""

    def spoil(step: StepName, steps: set[str]) -> None:
        def around(original: Callable[..., Any], *args: Any, **named: Any) -> Any:
            if step() not in steps:
                return original(*args, **named)
            recorder, safeio.recorder = safeio.recorder, Forgetful(safeio.recorder, operation)
            try:
                return original(*args, **named)
            finally:
                safeio.recorder = recorder

        wrap(safeio, name, around)

    return spoil


def no_intent(step: StepName, steps: set[str]) -> None:
    def around(original: Callable[..., intent.Intent], root: str, new: intent.Intent) -> intent.Intent:
        return intent.Intent(new.kind, new.payload, "never-written") if step() in steps else original(root, new)

    wrap(intent, "write", around)


def intent_cleared_at_once(step: StepName, steps: set[str]) -> None:
    def around(original: Callable[..., intent.Intent], root: str, new: intent.Intent) -> intent.Intent:
        written = original(root, new)
        if step() in steps:
            intent.clear(root, written)
        return written

    wrap(intent, "write", around)


def intent_before_the_data(step: StepName, steps: set[str]) -> None:
    """The sync of the message comes after the intent that promises it."""
    waiting: list[int] = []

    def sync(original: Callable[[int], None], fd: int) -> None:
        if step() in steps and "/tmp/" in safeio.path_of(fd):
            waiting.append(os.dup(fd))
        else:
            original(fd)

    def write(original: Callable[..., intent.Intent], root: str, new: intent.Intent) -> intent.Intent:
        written = original(root, new)
        while waiting:
            safeio.recorder, recorder = None, safeio.recorder
            os.fsync(waiting[0])
            safeio.recorder = recorder
            os.close(waiting.pop(0))
        return written

    wrap(safeio, "sync", sync)
    wrap(intent, "write", write)


def renamed_before_synced(step: StepName, steps: set[str]) -> None:
    """`replace` gives the new file its name first and syncs it then."""

    def replace(original: Callable[..., None], path: str, data: bytes, mode: int = 0o600) -> None:
        if step() not in steps:
            original(path, data, mode)
            return
        fd = safeio.open_new(path + ".new", mode)
        safeio.write(fd, data)
        safeio.rename(path + ".new", path)
        safeio.sync_directory(os.path.dirname(path))
        safeio.sync(fd)
        os.close(fd)

    wrap(safeio, "replace", replace)


def written_in_place(step: StepName, steps: set[str]) -> None:
    """`replace` writes over the file."""

    def replace(original: Callable[..., None], path: str, data: bytes, mode: int = 0o600) -> None:
        if step() not in steps or not os.path.exists(path):
            original(path, data, mode)
            return
        fd = os.open(path, os.O_RDWR)
        safeio.truncate(fd, 0)
        safeio.sync(fd)
        safeio.write(fd, data)
        safeio.sync(fd)
        os.close(fd)

    wrap(safeio, "replace", replace)


def keywords_last(step: StepName, steps: set[str]) -> None:
    """File names use a letter or a number before the file says what it means."""
    waiting: list[tuple[Any, ...]] = []

    def replace(original: Callable[..., None], path: str, *args: Any) -> None:
        if step() in steps and path.endswith("-keywords"):
            waiting.append((original, path, *args))
        else:
            original(path, *args)

    def rename(original: Callable[[str, str], None], old: str, new: str) -> None:
        original(old, new)
        while waiting:
            late, *args = waiting.pop()
            late(*args)

    wrap(safeio, "replace", replace)
    wrap(safeio, "rename", rename)


def below(*parts: str) -> Callable[[str], bool]:
    return lambda path: any(f"/{part}" in path + "/" for part in parts)


MUTANTS = (
    Mutant("append: the message is not synced", ("append one",), drop("sync", below("tmp/"))),
    Mutant("append: its directory is not synced", ("append one",), drop("sync_directory", below("new/", "cur/"))),
    Mutant("append: the group has no intent", ("append a group",), no_intent),
    Mutant("append: uidlist lines are not synced", ("append after the move", "expunge"), inside("append", "sync")),
    Mutant("deliver: no message is synced", ("deliver several",), drop("sync", below("tmp/"))),
    Mutant("deliver: the directory is not synced", ("deliver several",), drop("sync_directory", below("new/", "cur/"))),
    Mutant("store: the directory is not synced", ("store",), drop("sync_directory", below("cur/", "new/"))),
    Mutant("store: keywords are written last", ("store a keyword",), keywords_last),
    Mutant("store: further keywords are written last", ("store more keywords",), keywords_last),
    Mutant("store: keywords are renamed before they are synced", ("store a keyword",), renamed_before_synced),
    Mutant("store: keywords are written over in place", ("store a keyword",), written_in_place),
    Mutant("copy: no intent", ("copy",), no_intent),
    Mutant("copy: the directory is not synced", ("copy",), drop("sync_directory", below("cur/", "new/"))),
    Mutant("move: no intent", ("move",), no_intent),
    Mutant("move: the intent is cleared before the first step", ("move",), intent_cleared_at_once),
    Mutant("move: no directory is synced", ("move",), drop("sync_directory", below("cur/", "new/"))),
    Mutant("expunge: the directory is not synced", ("expunge",), drop("sync_directory", below("cur/", "new/"))),
    Mutant("replace: no intent", ("replace within", "replace elsewhere"), no_intent),
    Mutant("replace: no directory is synced", ("replace within",), drop("sync_directory", below("cur/", "new/"))),
    Mutant("replace: the message is not synced", ("replace elsewhere",), drop("sync", below("tmp/"))),
    Mutant("create: nothing is synced", ("create",), drop("sync_directory")),
    Mutant("subscribe: the file is not synced", ("subscribe",), inside("replace", "sync")),
    Mutant("subscribe: the directory is not synced", ("subscribe",), inside("replace", "sync_directory")),
    Mutant("rename: no intent", ("rename",), no_intent),
    Mutant("rename: the directory is not synced", ("rename",), drop("sync_directory")),
    Mutant("prepare: the intent is written before the data are safe", ("prepare",), intent_before_the_data),
    Mutant("prepare: no intent", ("prepare",), no_intent),
    Mutant("delete: the directory is not synced", ("delete",), drop("sync_directory")),
)


@pytest.fixture(scope="module")
def expected():
    return expectations()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_mutant_is_found_out(mutant, expected):
    names = [step.name for step in STEPS]
    assert set(mutant.steps) <= set(names)
    steps = STEPS[: max(names.index(name) for name in mutant.steps) + 1]
    with scratch() as base:
        root, empty = os.path.join(base, "mail"), os.path.join(base, "empty")
        os.mkdir(root)
        os.mkdir(empty)
        log = run_workload(
            root,
            os.path.join(base, "log"),
            steps=steps,
            record=True,
            spoil=lambda step: mutant.spoil(step, set(mutant.steps)),
        )
        assert not log.error, log.error
        found = violations(
            log,
            root,
            empty,
            os.path.join(base, "scratch"),
            expected,
            steps,
            set(mutant.steps),
            thorough=False,
            stop=True,
        )
    assert found, "no promise was seen to be broken"
