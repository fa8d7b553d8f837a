"""Running the workload in a process of its own, killing it at a named point, or recording what it does to the disk."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.recorder import Change
from tests import sweeps
from tests.store.disk import INDEX_FILES, USER, account_root, open_store
from tests.store.workload import STEPS, Picture, Step, observe

HANG = 30.0
"""Seconds: a start that takes longer waits for a dead process."""


@frozen
class Visit:
    """A named point that was passed in a step."""

    step: int
    point: str
    nth: int
    """How often it has been passed in this step before."""


@frozen
class Log:
    """What a run told before it ended."""

    pictures: list[Picture]
    """As seen at the start, and after each step that was acknowledged; of a run to be killed only the last."""
    visits: list[Visit]
    changes: list[Change]
    marks: list[int]
    """How many changes had been recorded at each picture."""
    indexes: list[dict[str, bytes]]
    """The index files as they were at each picture."""
    done: int = -1
    """Steps acknowledged; -1 when not even the account had been opened."""
    error: str = ""


class _Writer:
    """Keeps what the parent is to know, whatever happens to this process."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, kind: str, value: object) -> None:
        data = pickle.dumps((kind, value))
        os.write(self._fd, len(data).to_bytes(4, "big") + data)


def read_log(path: str) -> Log:
    log = Log([], [], [], [], [])
    done = -1
    with open(path, "rb") as stream:
        raw = stream.read()
    at = 0
    error = ""
    while at + 4 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        if at + 4 + size > len(raw):
            break
        kind, value = pickle.loads(raw[at + 4 : at + 4 + size])
        at += 4 + size
        if kind == "error":
            error = value
        elif kind == "done":
            done = value
        else:
            getattr(log, kind).append(value)
    return Log(log.pictures, log.visits, log.changes, log.marks, log.indexes, done, error)


def in_child(act: Callable[[], None]) -> int:
    """Run it in a forked process that never comes back here; its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    return os.waitpid(pid, 0)[1]


def worth_killing(visits: Sequence[Visit]) -> list[Visit]:
    """All of them in a whole sweep; else each point where it is passed first and last, and each step at least once."""
    if sweeps.WHOLE:
        return list(visits)
    first: dict[object, Visit] = {}
    for visit in visits:
        first.setdefault(visit.point, visit)
        first.setdefault(visit.step, visit)
    last = {visit.point: visit for visit in visits}
    chosen = {*first.values(), *last.values()}
    return [visit for visit in visits if visit in chosen]


def run_workload(
    root: str,
    log_path: str,
    *,
    steps: Sequence[Step] = STEPS,
    kill_at: Visit | None = None,
    record: bool = False,
    spoil: Callable[[Callable[[], str]], None] = lambda _step_name: None,
) -> Log:
    """In a child: open the account, run the steps, tell what was seen after each.

    `spoil` is called there first, with a function that names the step being run ("" for the opening, "look" while the
    account is only looked at).
    """

    def run() -> None:
        writer = _Writer(log_path)
        now: dict[str, Any] = {"step": -1, "counts": {}, "changes": 0, "on": True}

        def hook(name: str) -> None:
            if not now["on"]:
                return
            nth = now["counts"].get((now["step"], name), 0)
            now["counts"][now["step"], name] = nth + 1
            visit = Visit(now["step"], name, nth)
            if kill_at is None:
                writer.tell("visits", visit)
            elif visit == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        class Recorder:
            def record(self, change: Change) -> None:
                now["changes"] += 1
                writer.tell("changes", change)

        spoil(lambda: "look" if not now["on"] else steps[now["step"]].name if now["step"] >= 0 else "")
        safeio.hook = hook
        if record:
            safeio.recorder = Recorder()

        def acknowledge(account: Any, done: int) -> None:
            writer.tell("done", done)
            if kill_at is not None and done != kill_at.step:
                return
            # The answer has been given: what looking at the account changes or syncs comes too late.
            mark = now["changes"]
            now["on"] = False
            picture = observe(account)
            now["on"] = True
            if record:
                writer.tell("indexes", read_index(root))
                writer.tell("marks", mark)
            writer.tell("pictures", picture)

        try:
            account = open_store(root).account(USER)
            acknowledge(account, 0)
            held: dict[str, Any] = {}
            for number, step in enumerate(steps):
                now["step"] = number
                step.run(account, held)
                acknowledge(account, number + 1)
        except BaseException:
            writer.tell("error", traceback.format_exc())
            raise
        # No close: a process that is killed does not either.

    status = in_child(run)
    log = read_log(log_path)
    if kill_at is None and status != 0 and not log.error:
        raise AssertionError(f"the run ended with {status}")
    return log


def run_start(root: str, log_path: str, *, kill_at: Visit | None = None) -> list[Visit]:
    """In a child: what a start after a crash does, to its first change; the points it passes. It may be killed there."""

    def run() -> None:
        writer = _Writer(log_path)
        counts: dict[str, int] = {}

        def hook(name: str) -> None:
            visit = Visit(0, name, counts.get(name, 0))
            counts[name] = visit.nth + 1
            writer.tell("visits", visit)
            if visit == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        safeio.hook = hook
        account = open_store(root).account(USER)
        observe(account)
        account.set_subscribed("not/there", subscribed=False)

    in_child(run)
    return read_log(log_path).visits


def read_index(root: str) -> dict[str, bytes]:
    """The index files as they are, without the shared memory that no power cut leaves."""
    files = {}
    for name in INDEX_FILES:
        if not name.endswith("-shm"):
            with contextlib.suppress(FileNotFoundError), open(os.path.join(account_root(root), name), "rb") as stream:
                files[name] = stream.read()
    return files


def drop_index(root: str) -> None:
    for name in INDEX_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(account_root(root), name))
