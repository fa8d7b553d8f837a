"""What the queue needs beside tries: results made durable, reports of mail that is not tried, files that nobody accepted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from mailserver.errors import MailError
from mailserver.net.connection.coroutines import spawn
from mailserver.net.log.events import log
from mailserver.queue.interfaces import Spooled, Work

OVERDUE_TIME: Final = 60.0
SWEEP_TIME: Final = 3600.0


class QueueUpkeep:
    """`tick` is called each second, on the reactor's thread."""

    def __init__(
        self,
        clock: Any,
        work: Work,
        call: Callable[..., Awaitable[Any]],
        being_tried: Callable[[], Collection[int]],
        reported: Callable[[Sequence[Spooled]], None],
    ) -> None:
        """`call` calls the queue in a thread; `being_tried` are ids of recipients; `reported` hears of reports."""
        self._clock = clock
        self._work = work
        self._call = call
        self._being_tried = being_tried
        self._reported = reported
        self._is_unsynced = False
        self._is_running = False
        self._has_failed = False
        self._overdue_at = 0.0
        self._sweep_at = 0.0

    def results_written(self) -> None:
        """There are results that a power cut could undo."""
        self._is_unsynced = True

    def tick(self) -> None:
        """Do what is due, one thing after another."""
        if not self._is_running:
            self._is_running = True
            spawn(self._run())

    async def finish(self) -> None:
        """Make the last results durable. Raises: MailError."""
        if self._is_unsynced:
            self._is_unsynced = False
            await self._call(self._work.sync)

    async def _run(self) -> None:
        try:
            await self._do_due()
        except MailError as error:
            # What was not synced is synced with the next results, or by the acceptances of other processes.
            self._is_unsynced = True
            if not self._has_failed:
                log.error("upkeep of the mail queue has failed: {reason}", event="queue-upkeep", reason=error.reason)
            self._has_failed = True
        else:
            self._has_failed = False
        finally:
            self._is_running = False

    async def _do_due(self) -> None:
        await self.finish()
        now = self._clock.seconds()
        if now >= self._overdue_at:
            self._overdue_at = now + OVERDUE_TIME
            reports = await self._call(self._work.overdue, int(now), self._being_tried())
            if reports:
                self._reported(reports)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_TIME
            swept = await self._call(self._work.sweep, int(now))
            if swept:
                log.info(
                    "{count} files of the mail queue that nobody accepted are removed",
                    event="queue-swept",
                    count=len(swept),
                )
