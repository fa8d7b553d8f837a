"""Results of tries on their way into the queue: those that meet share one commit.

A result that cannot be committed is kept and tried again: the hop may have the message, and without its result it would be sent
once more. As long as nothing can be committed, nothing further is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailserver.errors import MailError
from mailserver.net.connection.coroutines import spawn
from mailserver.net.log.events import log
from mailserver.queue.model import Recipient
from mailserver.queue.outcome import Outcome

Results = Sequence[tuple[Recipient, Outcome]]

RETRY_TIMES: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a commit is tried again; the last holds for all further ones."""


class ResultWriter:
    """Commits results by `commit`, in the order in which they came."""

    def __init__(self, clock: Any, commit: Callable[[Results], Awaitable[object]]) -> None:
        """`commit` raises MailError when it can be tried again."""
        self._clock = clock
        self._commit = commit
        self._pending: list[tuple[Results, Deferred[None]]] = []
        self._is_writing = False
        self._failures = 0
        self._recovery: list[Deferred[None]] = []

    @property
    def is_idle(self) -> bool:
        """Are all results committed?"""
        return not self._is_writing and not self._pending

    @property
    def unwritten(self) -> int:
        """Recipients whose results are not committed."""
        return sum(len(results) for results, _done in self._pending)

    def write(self, results: Results) -> Deferred[None]:
        """Wait until the results are committed. Fails with what is no MailError: it is a bug, and the result is lost."""
        done: Deferred[None] = Deferred()
        self._pending.append((results, done))
        if not self._is_writing:
            self._is_writing = True
            spawn(self._write())
        return done

    def recovered(self) -> Deferred[None]:
        """Wait until commits succeed; at once where the last one has."""
        waiting: Deferred[None] = Deferred()
        if self._failures:
            self._recovery.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    async def _write(self) -> None:
        try:
            while self._pending:
                await self._write_group(list(self._pending))
        finally:
            self._is_writing = False

    async def _write_group(self, group: list[tuple[Results, Deferred[None]]]) -> None:
        try:
            await self._commit([each for results, _done in group for each in results])
        except MailError as error:
            await self._pause(error)
            return
        except Exception as bug:
            if len(group) > 1:
                # One of them is the reason: each alone.
                for each in group:
                    await self._write_group([each])
                return
            self._end(group, bug)
            return
        if self._failures:
            log.info("results of the mail queue can be written again", event="queue-writable")
        self._failures = 0
        waiting, self._recovery = self._recovery, []
        self._end(group)
        for recovered in waiting:
            if not recovered.called:
                recovered.callback(None)

    def _end(self, group: list[tuple[Results, Deferred[None]]], bug: Exception | None = None) -> None:
        for each in group:
            self._pending.remove(each)
            done = each[1]
            if not done.called:
                done.errback(bug) if bug is not None else done.callback(None)

    async def _pause(self, error: MailError) -> None:
        if not self._failures:
            log.error(
                "results of the mail queue cannot be written: {reason}; nothing further is sent until they can",
                event="queue-not-writable",
                reason=error.reason,
            )
        seconds = RETRY_TIMES[min(self._failures, len(RETRY_TIMES) - 1)]
        self._failures += 1
        waiting: Deferred[None] = Deferred()
        self._clock.callLater(seconds, waiting.callback, None)
        await waiting
