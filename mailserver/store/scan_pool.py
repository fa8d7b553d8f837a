"""A pool of processes that read mailboxes with very many new files, so that no client of the server process waits.

The problems. A first scan of 100,000 files takes half a second of Python. It holds up every client of the process, and
the account's thread for as long. Such mailboxes come one after another when mail moves in, and then none for months. A
child may die in the middle.

The rules. A child is started when there is an order and no child is idle, up to a few. It ends after a while without
orders. Orders wait in line. Sessions that want the same mailbox share one. A client that goes away does not stop it:
most come back for the same mailbox. A child that dies is replaced once for an order, and continues where it stopped.
`stop` waits for nothing: the next scan does what is left. All calls are made on one thread.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field

from mailserver.errors import InUse, MailError, NoSpace, NoSuchMailbox, StoreUnavailable
from mailserver.store.interfaces import Progress
from mailserver.system.children import Child, Spawner, Timer, Waiting, module_command, module_environment

IDLE: Final = 300.0
"""Seconds after which a child without an order ends."""
_MAX_LINE: Final = 4096
_ERRORS: Final[Mapping[str, type[MailError]]] = {
    error.__name__: error for error in (InUse, NoSpace, NoSuchMailbox, StoreUnavailable)
}
_log = logging.getLogger(__name__)


@define(eq=False)
class _Job:
    """An order with the sessions that wait for it."""

    line: bytes
    waiters: dict[Waiting, Progress | None] = field(factory=dict)
    latest: tuple[int, int] = (0, 0)
    tries: int = 0

    def report(self, done: int, goal: int) -> None:
        self.latest = done, goal
        for progress in self.waiters.values():
            if progress is not None:
                progress.done, progress.goal = done, goal

    def end(self, result: bool | MailError) -> None:
        waiters, self.waiters = self.waiters, {}
        for waiting in waiters:
            waiting.callback(result)


@define(eq=False)
class _Reader:
    """A child process and its current order; implements `children.ChildEvents`."""

    pool: ScanPool
    child: Child | None = None
    job: _Job | None = None
    timer: Timer | None = None
    buffer: bytearray = field(factory=bytearray)
    retired: bool = False
    """Dead or about to be: it gets no more orders."""

    def received(self, data: bytes) -> None:
        """Handle whole lines as answers."""
        self.buffer += data
        *lines, rest = self.buffer.split(b"\n")
        self.buffer = bytearray(rest)
        for line in lines:
            self.pool.answered(self, bytes(line))
        if len(rest) > _MAX_LINE:
            self.retire()

    def ended(self, reason: str) -> None:
        """Report the end to the pool."""
        known, self.retired = self.retired, True
        self.pool.lost(self, reason, expected=known)

    def retire(self) -> None:
        """Kill the child; `ended` follows."""
        self.retired = True
        if self.child is not None:
            self.child.kill()


class ScanPool:
    """The pool of child processes."""

    def __init__(
        self,
        spawn: Spawner,
        waiting: Callable[[], Waiting],
        call_later: Callable[[float, Callable[[], None]], Timer],
        *,
        processes: int = 1,
        idle: float = IDLE,
        at_once: int | None = None,
    ) -> None:
        """At most `processes` at a time; each ends after `idle` seconds without an order.

        `at_once`: messages of a batch, if other than `batched_scan` chooses.
        """
        self._spawn = spawn
        self._make_waiting = waiting
        self._call_later = call_later
        self._processes = processes
        self._idle = idle
        self._arguments = () if at_once is None else (str(at_once),)
        self._readers: list[_Reader] = []
        self._queue: deque[_Job] = deque()
        self._jobs: dict[bytes, _Job] = {}
        self._stopped = False

    @property
    def orders(self) -> int:
        """The number of mailboxes that are being read or wait for it."""
        return len(self._jobs)

    async def read(self, order: Mapping[str, str | int], progress: Progress | None = None) -> bool:
        """Carry out the order of a ScanTooLarge. False: the caller must do it itself.

        Raises: InUse, NoSpace, NoSuchMailbox, StoreUnavailable.
        """
        if self._stopped:
            raise StoreUnavailable
        line = json.dumps(order, sort_keys=True).encode("ascii") + b"\n"
        job = self._jobs.get(line)
        if job is None:
            job = self._jobs[line] = _Job(line)
            self._queue.append(job)
        elif progress is not None:
            progress.done, progress.goal = job.latest
        waiting = self._make_waiting()
        job.waiters[waiting] = progress
        self._dispatch()
        try:
            result = await waiting
        except BaseException:
            job.waiters.pop(waiting, None)
            raise
        if isinstance(result, MailError):
            raise result
        return bool(result)

    def stop(self) -> None:
        """End the children. Waiting callers get StoreUnavailable."""
        self._stopped = True
        jobs = [*self._jobs.values()]
        self._jobs.clear()
        self._queue.clear()
        for reader in self._readers:
            reader.job = None
            self._rest(reader, None)
            reader.retire()
        for job in jobs:
            job.end(StoreUnavailable())

    def answered(self, reader: _Reader, line: bytes) -> None:
        """Handle a child's answer (called by its reader)."""
        job = reader.job
        if job is None:
            return
        match _json(line):
            case [int(done), int(goal)]:
                job.report(done, goal)
            case "done":
                self._end(reader, job, result=True)
            case "elsewhere":
                self._end(reader, job, result=False)
            case {"error": str(name)}:
                self._end(reader, job, result=_ERRORS.get(name, StoreUnavailable)())
            case _:
                _log.error("a mailbox scan process sent an invalid answer; it is replaced")
                reader.retire()

    def lost(self, reader: _Reader, reason: str, *, expected: bool) -> None:
        """Handle a child's death (called by its reader)."""
        if reader in self._readers:
            self._readers.remove(reader)
        self._rest(reader, None)
        job, reader.job = reader.job, None
        if self._stopped:
            return
        if not expected:
            _log.error("a mailbox scan process ended: %s", reason)
        if job is not None:
            job.tries += 1
            if job.tries > 1:
                del self._jobs[job.line]
                job.end(StoreUnavailable())
            else:
                self._queue.appendleft(job)
        self._dispatch()

    def _end(self, reader: _Reader, job: _Job, *, result: bool | MailError) -> None:
        reader.job = None
        del self._jobs[job.line]
        self._rest(reader, self._call_later(self._idle, lambda: self._bored(reader)))
        job.end(result)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._queue and not self._stopped:
            reader = next((each for each in self._readers if each.job is None and not each.retired), None)
            if reader is None:
                if len(self._readers) >= self._processes:
                    return
                try:
                    reader = self._start()
                except OSError as error:
                    _log.error("a mailbox scan process could not be started: %s", error)
                    job = self._queue.popleft()
                    del self._jobs[job.line]
                    job.end(False)
                    continue
            self._rest(reader, None)
            job = reader.job = self._queue.popleft()
            assert reader.child is not None
            reader.child.write(job.line)

    def _start(self) -> _Reader:
        reader = _Reader(self)
        command = (*module_command("mailserver.store.maildir.sync.scan_process"), *self._arguments)
        reader.child = self._spawn(command, module_environment(), reader)
        self._readers.append(reader)
        return reader

    def _bored(self, reader: _Reader) -> None:
        reader.timer = None
        reader.retire()

    def _rest(self, reader: _Reader, timer: Timer | None) -> None:
        """Replace the timer that ends an idle child."""
        if reader.timer is not None:
            reader.timer.cancel()
        reader.timer = timer


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
