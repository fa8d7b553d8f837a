"""The pool of processes that check password hashes, kept off the server's own process.

The problems. crypt(3) holds Python's lock for 177 ms at high rounds, argon2 takes 64 MiB each, and a flood of logins
asks for hundreds at once. A child may die or hang in the middle of a check.

The rules. Children are started by exec, never by fork of the server; secrets go through their pipes, never into their
arguments. One child checks one hash at a time. What waits is bounded, and so is the memory that runs. Checks have three
classes (`Asking`), each with a queue of its own: users at networks known for them, networks from which nobody has guessed
lately, and all others. A higher class goes first, so that a known user waits for one check that runs and for other known users,
never for a flood; in its own class each user has a share, so that an account with many networks has one turn, too. In the
other classes clients take turns, and in a full queue the one that fills it gives way, so that a flood from one place holds
up itself alone. Of the networks that nobody has guessed from the newest goes first: a flood's first wave is no line that a
person stands behind. What has waited for LONGEST_WAIT is refused. A
child that dies is replaced when it is needed; its request is tried once more, then told AuthUnavailable. What is only
compared needs no child: each answers once in a turn of the reactor, so that logins would wait in line. Nothing here
imports Twisted: whoever makes the pool passes the ways to start a process, to wait and to set a timer.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field

from mailserver.auth.interfaces import CLASSES, NEW
from mailserver.auth.schemes import schemes
from mailserver.auth.throttling.fair_queue import ClassQueue, FairQueue, NewestFirstQueue
from mailserver.errors import AuthUnavailable, TooManyLogins
from mailserver.system.children import Child, Spawner, Timer, Waiting, module_command, module_environment
from mailserver.types import Secret

_MAX_ANSWER = 4096
LONGEST_WAIT: Final = 60.0
"""Seconds that a check may wait for a child."""
_NO_ROOM = object()
"""The result of a check that has given way to another."""
_log = logging.getLogger(__name__)


@define(eq=False)
class _Request:
    line: bytes = field(repr=False)
    """With the password."""
    memory_kib: int
    waiting: Waiting
    share: str
    rank: int
    tries: int = 0
    abandoned: bool = False
    """Whoever asked was cancelled."""
    timer: Timer | None = None
    """Until it is refused."""

    def end_wait(self) -> None:
        """Its wait for a child is over."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()


@define(eq=False)
class _Worker:
    """One child and what it works on; implements ChildEvents."""

    pool: HashPool
    child: Child | None = None
    request: _Request | None = None
    timer: Timer | None = None
    buffer: bytearray = field(factory=bytearray)
    retired: bool = False
    """Dead or about to be: it gets no more work."""

    def received(self, data: bytes) -> None:
        """Collect the answer's line."""
        self.buffer += data
        if len(self.buffer) > _MAX_ANSWER:
            self.retire()
        elif self.buffer.endswith(b"\n"):
            line = bytes(self.buffer)
            self.buffer.clear()
            self.pool.answered(self, line)

    def ended(self, reason: str) -> None:
        """Tell the pool."""
        self.retired = True
        self.pool.lost(self, reason)

    def retire(self) -> None:
        """Kill it; `ended` follows."""
        self.retired = True
        if self.child is not None:
            self.child.kill()


class HashPool:
    """Checks hashes in child processes: a `Hasher`. All calls are made on one thread."""

    def __init__(
        self,
        spawn: Spawner,
        waiting: Callable[[], Waiting],
        call_later: Callable[[float, Callable[[], None]], Timer],
        *,
        processes: int = 2,
        queue: int = 64,
        memory_kib: int = 2 * schemes.MAX_MEMORY_KIB,
        timeout: float = 30.0,
    ) -> None:
        """`queue` bounds the checks of a class that wait, `memory_kib` what those that run may use, `timeout` seconds each."""
        self._spawn = spawn
        self._make_waiting = waiting
        self._call_later = call_later
        self._processes = processes
        self._limit = queue
        self._memory_kib = memory_kib
        self._timeout = timeout
        self._queue: ClassQueue[_Request] = ClassQueue(
            [NewestFirstQueue() if rank == NEW else FairQueue() for rank in range(CLASSES)]
        )
        self._workers: list[_Worker] = []
        self._stopped = False

    def start(self) -> None:
        """Start the children now, so that the first login does not wait for it. Raises: OSError."""
        while len(self._workers) < self._processes:
            self._start_worker()

    def stop(self) -> None:
        """End the children; what waits is told AuthUnavailable."""
        self._stopped = True
        given_up = [*self._queue.clear(), *(worker.request for worker in self._workers if worker.request)]
        for worker in self._workers:
            self._settle(worker)
            worker.retire()
        for request in given_up:
            request.end_wait()
            request.waiting.callback(None)

    @property
    def running(self) -> tuple[int, int]:
        """How many checks run, of how many at most."""
        return sum(worker.request is not None for worker in self._workers), self._processes

    @property
    def waiting(self) -> tuple[int, int]:
        """How many checks wait, of how many at most."""
        return len(self._queue), CLASSES * self._limit

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        """Does the password belong to the entry? `share` and `rank` as `interfaces.Asking` says.

        Raises: TooManyLogins where the queue is full, AuthUnavailable (children die, entry unusable).
        """
        try:
            entry = schemes.parse(stored)
        except schemes.BadHash as error:
            _log.error("a stored password cannot be used: %s", error)
            raise AuthUnavailable from error
        if entry.scheme.is_free and not self._stopped:
            return schemes.verify(stored, password.reveal())
        if self._stopped:
            raise AuthUnavailable
        encoded = base64.b64encode(password.reveal()).decode("ascii")
        line = json.dumps({"stored": stored, "password": encoded}).encode("ascii") + b"\n"
        request = _Request(line, entry.memory_kib, self._make_waiting(), share, rank)
        if self._queue.length(rank) >= self._limit:
            other = self._queue.evict_for(request)
            if other is None:
                raise TooManyLogins
            self._refuse(other)
        request.timer = self._call_later(LONGEST_WAIT, lambda: self._give_up(request))
        self._queue.add(request)
        self._dispatch()
        try:
            right = await request.waiting
        except BaseException:
            # The client is gone: what still waits for a child need not be checked.
            request.abandoned = True
            self._queue.discard(request)
            request.end_wait()
            raise
        if right is _NO_ROOM:
            raise TooManyLogins
        if right is None:
            raise AuthUnavailable
        return bool(right)

    def _give_up(self, request: _Request) -> None:
        request.timer = None
        self._refuse(request)

    def _refuse(self, request: _Request) -> None:
        """It has waited too long, or given way."""
        request.end_wait()
        self._queue.discard(request)
        request.waiting.callback(_NO_ROOM)

    def answered(self, worker: _Worker, line: bytes) -> None:
        """A child has answered its request (called by its worker)."""
        request = self._settle(worker)
        right: bool | None = None
        match _json(line):
            case {"right": bool(found)}:
                right = found
            case {"error": str(error)}:
                _log.error("a password could not be checked: %s", error)
            case _:
                _log.error("a process that checks passwords answered nonsense and is replaced")
                worker.retire()
        if request is not None:
            request.waiting.callback(right)
        self._dispatch()

    def lost(self, worker: _Worker, reason: str) -> None:
        """A child is dead (called by its worker)."""
        if worker in self._workers:
            self._workers.remove(worker)
        request = self._settle(worker)
        if self._stopped:
            return
        _log.error("a process that checks passwords has ended: %s", reason)
        if request is not None:
            request.tries += 1
            if request.tries > 1:
                request.waiting.callback(None)
            elif not request.abandoned:
                self._queue.add_first(request)
        self._dispatch()

    def _dispatch(self) -> None:
        """Give what waits to children that are free, share by share, within the memory budget."""
        while not self._stopped and (request := self._queue.first()) is not None:
            running = [worker.request.memory_kib for worker in self._workers if worker.request]
            if running and sum(running) + request.memory_kib > self._memory_kib:
                return
            worker = self._free_worker()
            if worker is None and self._workers:
                return
            self._queue.pop_first()
            request.end_wait()
            if worker is None:
                request.waiting.callback(None)
            else:
                self._give(worker, request)

    def _free_worker(self) -> _Worker | None:
        for worker in self._workers:
            if worker.request is None and not worker.retired:
                return worker
        if len(self._workers) >= self._processes:
            return None
        try:
            return self._start_worker()
        except OSError as error:
            _log.error("a process that checks passwords cannot be started: %s", error)
            return None

    def _start_worker(self) -> _Worker:
        worker = _Worker(self)
        worker.child = self._spawn(module_command("mailserver.auth.schemes.hash_process"), module_environment(), worker)
        self._workers.append(worker)
        return worker

    def _give(self, worker: _Worker, request: _Request) -> None:
        assert worker.child is not None
        worker.request = request
        worker.timer = self._call_later(self._timeout, lambda: self._hung(worker))
        worker.child.write(request.line)

    def _hung(self, worker: _Worker) -> None:
        worker.timer = None
        _log.error("a process that checks passwords hangs and is replaced")
        worker.retire()

    def _settle(self, worker: _Worker) -> _Request | None:
        """Take its request, and the timer, off the worker."""
        request, worker.request = worker.request, None
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None
        return request


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
