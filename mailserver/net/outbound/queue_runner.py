"""Sends the mail of the queue: takes destinations that are due, and has workers send their messages.

No destination holds up the others. Each has a number of connections that grows with the hop's replies; permits for
transactions go round (`transaction_semaphore`); a hop that has no room for another connection is waited for without a
worker; and where more destinations are due than run at once, those that have had their turn come after the others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar, cast

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.python.failure import Failure

from mailserver.errors import MailError
from mailserver.net.connection.coroutines import spawn
from mailserver.net.log.events import log, log_event, log_warning
from mailserver.net.outbound.active_destination import ActiveDestination
from mailserver.net.outbound.destination_worker import DestinationWorker
from mailserver.net.outbound.hop_pool import HopPool
from mailserver.net.outbound.mx_hosts import MXHosts
from mailserver.net.outbound.place import PoolKey
from mailserver.net.outbound.queue_upkeep import QueueUpkeep
from mailserver.net.outbound.result_writer import Results, ResultWriter
from mailserver.net.outbound.transaction_semaphore import PATIENCE, TransactionSemaphore
from mailserver.queue.interfaces import Spooled, Try, Work
from mailserver.queue.model import Message, Recipient
from mailserver.queue.outcome import Outcome
from mailserver.queue.routing import Routes

T = TypeVar("T")

LOOK_TIME: Final = 1.0
"""Seconds between two looks at the queue, for a poke that got lost."""
MOST_ACTIVE: Final = 100
"""Destinations that are worked on at once. Most of them wait for connections or replies."""
MOST_WAITING_FOR_ROOM: Final = 1000
MESSAGES_BEFORE_OTHERS: Final = 100
"""Messages of a destination before others that are due come first, where more are due than run at once."""
PAUSE_WITHOUT_RESULT: Final = 10.0
"""Seconds before a destination is looked at again that seemed due and had nothing to send."""
PAUSE_AFTER_BUG: Final = 60.0
PAUSE_OF_QUEUE: Final = 5.0
"""Seconds before a queue that cannot be read is asked again."""


@frozen
class RunnerLimits:
    """`[queue] concurrency` and `per_destination`."""

    concurrency: int = 20
    """Transactions at once, and so messages that are sent once more after a crash."""
    per_destination: int = 4


@define
class QueueCounters:
    """Counted since the start."""

    messages: int = 0
    """Transactions whose results were recorded."""
    results: Counter[str] = field(factory=Counter)
    """Recipients by `outcome.Result`."""
    reports: int = 0
    """Reports that results, delays and expiry have caused."""
    silent_hops: int = 0
    """Transactions that ended without a reply."""
    bugs: int = 0


class QueueRunner:
    """Runs in the process that owns the queue. All methods are called on the reactor's thread."""

    def __init__(
        self,
        clock: Any,
        work: Work,
        routes: Routes,
        hosts: MXHosts,
        pool: HopPool,
        *,
        limits: RunnerLimits = RunnerLimits(),
        call_in_thread: Callable[..., Deferred[Any]],
    ) -> None:
        """`clock` has the time of day; `call_in_thread` is `coroutines.in_thread` with its reactor."""
        self.routes = routes
        """In force for the next messages; a reload replaces it, and `hosts`."""
        self.hosts = hosts
        self.pool = pool
        self.counters = QueueCounters()
        self.permits = TransactionSemaphore(clock, limits.concurrency)
        self._clock = clock
        self._work = work
        self._limits = limits
        self._call_in_thread = call_in_thread
        self._lock = DeferredLock()
        self._writer = ResultWriter(clock, self._commit)
        self._upkeep = QueueUpkeep(clock, work, self._call, self._being_tried, self._has_reported)
        self._active: dict[str, ActiveDestination] = {}
        self._workers: dict[DestinationWorker, Deferred[None]] = {}
        self._waiting_for_room: dict[PoolKey, OrderedDict[str, None]] = {}
        self._paused: dict[str, float] = {}
        """Destinations that are not looked at before a time."""
        self._after_others: set[str] = set()
        self._stuck: set[int] = set()
        """Recipients at which a bug was met: nobody knows what the hop has of them."""
        self._next_due: float | None = None
        self._is_checking = False
        self._is_looking = False
        self._is_readable = True
        self._look_again = False
        self._timer: Any = None
        self._is_stopping = False
        self._ended: list[Deferred[None]] = []
        pool.on_room = self._has_room

    @property
    def active(self) -> int:
        """Destinations that are worked on."""
        return len(self._active)

    @property
    def waiting_for_room(self) -> int:
        """Destinations that wait for a connection to a hop that has as many as it may."""
        return sum(len(each) for each in self._waiting_for_room.values())

    # --- Looking at the queue

    def start(self) -> None:
        """Begin. Afterwards it looks at the queue by itself."""
        self._tick()

    def poke(self) -> None:
        """Look at the queue now: something was accepted, or released."""
        for each in self._active.values():
            each.has_more()
        self._look_again = True
        if not self._is_looking and not self._is_stopping:
            self._is_looking = True
            spawn(self._look())

    def _tick(self) -> None:
        self._timer = self._clock.callLater(LOOK_TIME, self._tick)
        self._upkeep.tick()
        self._go_past_stalls()
        for key in list(self._waiting_for_room):
            if self.pool.has_room(key):
                self._start_waiting(key)
        if not self._is_checking:
            self._is_checking = True
            spawn(self._look_if_due())

    async def _look_if_due(self) -> None:
        now = self._clock.seconds()
        over = [name for name, until in self._paused.items() if until <= now]
        for name in over:
            del self._paused[name]
        try:
            has_changed = await self._call(self._work.changed)
        except MailError as error:
            self._not_readable(error)
            return
        finally:
            self._is_checking = False
        if has_changed or over or self._next_due is None or self._next_due <= now:
            self.poke()

    async def _look(self) -> None:
        try:
            while self._look_again and not self._is_stopping:
                self._look_again = False
                await self._start_due()
        except MailError as error:
            self._not_readable(error)
        finally:
            self._is_looking = False

    def _not_readable(self, error: MailError) -> None:
        if self._is_readable:
            log.error("the mail queue cannot be read: {reason}", event="queue-not-readable", reason=error.reason)
        self._is_readable = False

    async def _start_due(self) -> None:
        now = int(self._clock.seconds())
        self._next_due = now + PAUSE_OF_QUEUE
        room = MOST_ACTIVE - len(self._active)
        if room > 0:
            besides = self._not_now()
            found = await self._call(self._work.due, now, room, besides | self._after_others)
            if len(found) < room and self._after_others:
                self._after_others.clear()
                found = await self._call(self._work.due, now, room, besides)
            for name in found:
                if name not in self._not_now():
                    self._start_destination(name)
        next_due = await self._call(self._work.next_due, self._not_now())
        # A destination that ends has the queue looked at again.
        self._next_due = float("inf") if next_due is None else float(max(next_due, now + 1))
        if not self._is_readable:
            log.info("the mail queue can be read again", event="queue-readable")
        self._is_readable = True

    def _go_past_stalls(self) -> None:
        """Have another worker for destinations whose workers all wait for the hop, if it has replied before."""
        now = self._clock.seconds()
        for each in list(self._active.values()):
            if each.can_have_worker and now - each.progress > PATIENCE:
                each.progress = now
                each.has_more()
                self._start_worker(each)

    def _not_now(self) -> set[str]:
        waiting = (name for names in self._waiting_for_room.values() for name in names)
        return {*self._active, *self._paused, *waiting}

    # --- Destinations and their workers

    def _start_destination(self, name: str) -> None:
        if self._is_stopping:
            return
        destination = self._active[name] = ActiveDestination(name, self._limits.per_destination, self._take)
        destination.progress = self._clock.seconds()
        self._start_worker(destination)

    def _start_worker(self, destination: ActiveDestination) -> None:
        destination.workers += 1
        worker = DestinationWorker(self, destination, self.permits.permit())
        running = self._workers[worker] = Deferred.fromCoroutine(worker.run())
        running.addBoth(lambda result: self._worker_ended(destination, worker, result))

    def _worker_ended(self, destination: ActiveDestination, worker: DestinationWorker, result: Any) -> None:
        self._workers.pop(worker, None)
        destination.workers -= 1
        if isinstance(result, Failure) and not (self._is_stopping and result.check(CancelledError)):
            log.failure("sending mail of the queue has failed", result, event="bug", destination=destination.name)
            self.counters.bugs += 1
            destination.has_ended = True
            destination.pause = PAUSE_AFTER_BUG
            if worker.present is not None:
                self._stuck |= {each.id for each in worker.present.recipients}
        if destination.needs_worker and not self._is_stopping:
            self._start_worker(destination)
        if not destination.workers:
            self._end_destination(destination)
        if self._is_stopping and not self._workers:
            ended, self._ended = self._ended, []
            for each in ended:
                each.callback(None)

    def _end_destination(self, destination: ActiveDestination) -> None:
        name = destination.name
        self._active.pop(name, None)
        if self._is_stopping:
            return
        is_waiting = any(name in names for names in self._waiting_for_room.values())
        pause = destination.pause or (0 if destination.messages or is_waiting else PAUSE_WITHOUT_RESULT)
        if pause:
            self._paused[name] = self._clock.seconds() + pause
        elif destination.messages >= MESSAGES_BEFORE_OTHERS:
            self._after_others.add(name)
        self.poke()

    def _has_room(self, key: PoolKey) -> None:
        # In a turn of its own: the connection is being given back.
        self._clock.callLater(0, self._start_waiting, key)

    def _start_waiting(self, key: PoolKey) -> None:
        names = self._waiting_for_room.get(key)
        if not names:
            return
        name, _ = names.popitem(last=False)
        if not names:
            del self._waiting_for_room[key]
        self._start_destination(name)

    # --- What workers call

    async def ready(self) -> bool:
        """See Surroundings."""
        if not self._is_stopping:
            await self._writer.recovered()
        return not self._is_stopping

    async def record(self, destination: ActiveDestination, results: Results) -> None:
        """See Surroundings."""
        await self._writer.write(results)
        destination.forget({recipient.id for recipient, _outcome in results})
        destination.messages += 1
        destination.progress = self._clock.seconds()
        self.counters.messages += 1
        self.counters.silent_hops += any(outcome.stage is not None and not outcome.code for _, outcome in results)
        for recipient, outcome in results:
            self.counters.results[outcome.result] += 1
            _log_result(recipient, outcome)
        if len(self._active) >= MOST_ACTIVE and destination.messages >= MESSAGES_BEFORE_OTHERS:
            destination.has_ended = True
        while destination.needs_worker and not self._is_stopping:
            self._start_worker(destination)

    def open(self, message: Message) -> int:
        """See Surroundings."""
        return self._work.open(message)

    async def in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """See Surroundings."""
        return cast("T", await self._call_in_thread(call, *arguments))

    def is_wanted(self, key: PoolKey) -> bool:
        """See Surroundings."""
        return key in self._waiting_for_room

    def wait_for_room(self, destination: ActiveDestination, key: PoolKey) -> None:
        """See Surroundings."""
        destination.has_ended = True
        if self.waiting_for_room >= MOST_WAITING_FOR_ROOM:
            destination.pause = PAUSE_WITHOUT_RESULT
        else:
            self._waiting_for_room.setdefault(key, OrderedDict())[destination.name] = None

    async def _take(self, name: str, limit: int, besides: Collection[int]) -> Sequence[Try]:
        return await self._call(
            self._work.take, name, int(self._clock.seconds()), limit, frozenset({*besides, *self._stuck})
        )

    async def _commit(self, results: Results) -> None:
        reports = await self._call(self._work.results, results, int(self._clock.seconds()))
        self._upkeep.results_written()
        if reports:
            self._has_reported(reports)

    def _has_reported(self, reports: Sequence[Spooled]) -> None:
        self.counters.reports += len(reports)
        self.poke()

    def _being_tried(self) -> Collection[int]:
        return frozenset(self._stuck.union(*(each.ids for each in self._active.values())))

    async def _call(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call the queue, one call at a time."""
        await self._lock.acquire()
        running: Deferred[T] = self._call_in_thread(call, *arguments)
        waiting: Deferred[T] = Deferred()

        def pass_on(result: T | Failure) -> None:
            # A worker that is cancelled does not wait for the call, and the next call does.
            self._lock.release()
            if not waiting.called:
                waiting.callback(cast("T", result))

        running.addBoth(pass_on)
        return await waiting

    # --- The end

    async def stop(self, limit: float) -> None:
        """Begin no further transaction; let those that run end, for so many seconds; close all connections."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for worker, running in list(self._workers.items()):
            if not worker.is_sending:
                running.cancel()
        if self._workers:
            ended: Deferred[None] = Deferred()
            self._ended.append(ended)
            timer = self._clock.callLater(limit, self._cancel_workers)
            await ended
            if timer.active():
                timer.cancel()
        self.pool.close_resting()
        try:
            await self._upkeep.finish()
        except MailError as error:
            log.error(
                "the last results of the mail queue may be lost by a power cut: {reason}",
                event="queue-upkeep",
                reason=error.reason,
            )

    def _cancel_workers(self) -> None:
        log_warning("queue-stop-cuts", transactions=len(self._workers), unwritten=self._writer.unwritten)
        for running in list(self._workers.values()):
            running.cancel()


def _log_result(recipient: Recipient, outcome: Outcome) -> None:
    fields = {"recipient": recipient.target.address, "result": outcome.result, "status": outcome.status}
    fields |= {"hop": outcome.hop, "reply": outcome.diagnostic}
    if outcome.may_have_arrived:
        fields["may_have_arrived"] = "yes"
    log_event("queue-result", **{name: value for name, value in fields.items() if value})
