"""A pool of child processes that check password hashes, outside the server's own process.

The problems. crypt(3) holds Python's lock for 177 ms at high rounds, argon2 takes 64 MiB a check, and a flood of logins
requests hundreds at once. A child may die or hang during a check.

The rules. Children are started by exec, never by fork of the server; secrets pass through their pipes, never through
arguments. A child checks one hash at a time. The number of waiting checks is bounded, and so is the memory of running
ones. Checks have three classes (`Asking`), each with its own queue: users at known networks, networks without recent
guesses, and all others. Higher classes go first, so a known user waits for one running check and for other known users,
never for a flood. In the first class each user has a share: an account with many networks has one turn, too. In the others
clients take turns, and a full queue evicts from the client that fills it, so a flood from one place delays only itself.
Among networks without recent guesses the newest goes first: nobody waits behind the first wave of a flood. A check that has
waited for MAX_WAIT is refused. A dead child is replaced when needed; its request is tried once more, then fails with
AuthUnavailable. Schemes that only compare need no child. Nothing here imports Twisted: the caller provides functions to
start a process, to wait and to set a timer.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field

from mailserver.auth.asking import CLASSES, GUESSING, NEW
from mailserver.auth.schemes import renewal, schemes
from mailserver.auth.throttling.fair_queue import ClassQueue, FairQueue, NewestFirstQueue
from mailserver.errors import AuthUnavailable, TooManyLogins
from mailserver.system.children import Child, Spawner, Timer, Waiting, module_command, module_environment
from mailserver.types import Secret

_MAX_ANSWER = 4096
MAX_WAIT: Final = 60.0
"""Seconds that a check may wait for a child."""
_REFUSED = object()
"""Result of a check that was evicted or timed out."""
_log = logging.getLogger(__name__)


@define(eq=False)
class _Request:
    line: bytes = field(repr=False)
    """The request with the password."""
    memory_kib: int
    waiting: Waiting
    share: str
    rank: int
    tries: int = 0
    abandoned: bool = False
    """The caller was cancelled."""
    timer: Timer | None = None
    """Timeout of the wait."""

    def end_wait(self) -> None:
        """End its wait for a child."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()


@define(eq=False)
class _Worker:
    """One child and its request; implements ChildEvents."""

    pool: HashPool
    child: Child | None = None
    request: _Request | None = None
    timer: Timer | None = None
    buffer: bytearray = field(factory=bytearray)
    retired: bool = False
    """Dead or being killed: it gets no more requests."""

    def received(self, data: bytes) -> None:
        """Collect the line of an answer."""
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
    """A `Hasher` that checks hashes in child processes. All calls are made on one thread."""

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
        """`queue`: waiting checks of a class. `memory_kib`: of all running checks. `timeout`: seconds of one check."""
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
        """Start the children before the first login. Raises: OSError."""
        while len(self._workers) < self._processes:
            self._start_worker()

    def stop(self) -> None:
        """End the children; waiting checks fail with AuthUnavailable."""
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
        """Running checks, and their limit."""
        return sum(worker.request is not None for worker in self._workers), self._processes

    @property
    def waiting(self) -> tuple[int, int]:
        """Waiting checks, and their limit."""
        return len(self._queue), CLASSES * self._limit

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        """Does the password match the entry? `share` and `rank`: see `interfaces.Asking`.

        Raises: TooManyLogins if the queue is full; AuthUnavailable if children die or the entry is unusable.
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
        return bool(await self._ask({"stored": stored}, password, entry.memory_kib, share, rank))

    async def make_anew(self, password: Secret, scram: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Make an entry and SCRAM keys (`renewal.make_anew`), in the lowest class.

        Raises: TooManyLogins if the queue is full; AuthUnavailable.
        """
        if self._stopped:
            raise AuthUnavailable
        made = await self._ask({"scram": dict(scram)}, password, renewal.MEMORY_KIB, "renewal", GUESSING)
        if not isinstance(made, tuple):
            raise AuthUnavailable
        return made

    async def _ask(self, question: dict[str, object], password: Secret, memory_kib: int, share: str, rank: int) -> Any:
        """The answer of a child. Raises: TooManyLogins, AuthUnavailable."""
        encoded = base64.b64encode(password.reveal()).decode("ascii")
        line = json.dumps({**question, "password": encoded}).encode("ascii") + b"\n"
        request = _Request(line, memory_kib, self._make_waiting(), share, rank)
        if self._queue.length(rank) >= self._limit:
            other = self._queue.evict_for(request)
            if other is None:
                raise TooManyLogins
            self._refuse(other)
        request.timer = self._call_later(MAX_WAIT, lambda: self._time_out(request))
        self._queue.add(request)
        self._dispatch()
        try:
            answer = await request.waiting
        except BaseException:
            # The client has disconnected: a waiting check is not needed any more.
            request.abandoned = True
            self._queue.discard(request)
            request.end_wait()
            raise
        if answer is _REFUSED:
            raise TooManyLogins
        if answer is None:
            raise AuthUnavailable
        return answer

    def _time_out(self, request: _Request) -> None:
        request.timer = None
        self._refuse(request)

    def _refuse(self, request: _Request) -> None:
        """Refuse a check that has waited too long or was evicted."""
        request.end_wait()
        self._queue.discard(request)
        request.waiting.callback(_REFUSED)

    def answered(self, worker: _Worker, line: bytes) -> None:
        """Handle the answer of a child (called by its worker)."""
        request = self._settle(worker)
        answer: bool | tuple[str, dict[str, str]] | None = None
        match _json(line):
            case {"right": bool(found)}:
                answer = found
            case {"made": str(made), "scram": dict(keys)}:
                answer = made, keys
            case {"error": str(error)}:
                _log.error("a password could not be checked: %s", error)
            case _:
                _log.error("a process that checks passwords sent a malformed answer and is replaced")
                worker.retire()
        if request is not None:
            request.waiting.callback(answer)
        self._dispatch()

    def lost(self, worker: _Worker, reason: str) -> None:
        """Handle the end of a child (called by its worker)."""
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
        """Give waiting checks to free children, share by share, within the memory limit."""
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
        """Detach the request and the timer from the worker."""
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
