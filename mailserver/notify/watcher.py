"""Watch open mailboxes for changes by other programs, and poke the mailboxes that change.

Every mailbox that a session has open is watched, and some seconds longer, until another program or worker changes it:
clients come back, and setting a watch costs more than a SELECT. A file name from inotify goes with the poke to this worker's own mailbox, which reads that name only.
Two seconds after the last change the whole mailbox is compared with the disk, which finds changes within one tick of the
file system's clock. Every 30 seconds each mailbox is compared in any case: a lost event, an overflow or a watch that
cannot be set delays a change but never hides it. These comparisons are spread. Three stats are enough for a mailbox that has
not changed (`store/maildir/sync/directory_stamp.py`); any other takes a hop to the account's thread.

A delivery by another program is passed on as soon as it is read, without a timer: its sender may ask at once whether it
is there, and IDLE waits for it. inotify is read again `inotify.PAUSE` later, and the session reads the mailbox once for
all names that came meanwhile. In a storm that is BURST times for a mailbox; then names are gathered for GATHER_TIME.

To inotify the other workers of this server are other programs. A worker pokes what it changes, once it is in the index;
the file names arrive earlier, while that worker still holds the account's lock. So with other workers names are gathered
for GATHER_TIME at least. After that they are known from the index in most cases, which the mailbox sees without the lock. What
such a worker delivers has a name of this server's form (`Mailbox.is_own_name`), and what it renames was in a watched
directory before: neither is taken for another program's delivery.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailserver.notify.inotify import Inotify
from mailserver.store.live import LiveMailbox

SETTLE_TIME = 2.0
"""Seconds after the last change until a mailbox is compared."""
COMPARE_TIME = 30.0
"""Seconds in which every mailbox is compared with the disk once."""
COMPARE_PARTS = 30
"""Mailboxes are divided into so many parts, which are compared one after the other."""
GATHER_TIME = 0.05
"""Seconds; a delivery by another worker takes less, also on a disk whose syncs are slow."""
BURST = 40
"""Passes of names to one mailbox that need not wait."""
REFILL_TIME = 0.02
"""Seconds after which one more need not wait."""
LINGER_TIME = 10.0
"""Seconds a mailbox is watched without a session, unless it changes."""
MOST_LINGERING = 64
"""Mailboxes without a session that are watched."""

log = Logger(namespace="mailserver")


class Watcher:
    """All watched mailboxes of a worker."""

    def __init__(self, reactor: IReactorFDSet, clock: IReactorTime, *, gather: float = 0.0) -> None:
        """`gather`: seconds for which file names that may be another worker's are gathered before they are passed on."""
        self._clock = clock
        self._gather = gather
        self._used: dict[LiveMailbox, float] = {}
        """Mailbox -> the time at which all its passes will be allowed again."""
        self._gathered: dict[LiveMailbox, set[str]] = {}
        self._ripe: dict[LiveMailbox, set[str]] = {}
        """Names that were gathered before the present GATHER_TIME began: passed on at its end."""
        self._passing: IDelayedCall | None = None
        self._watches: dict[int, LiveMailbox] = {}
        self._mailboxes: dict[LiveMailbox, list[int]] = {}
        self._settling: dict[LiveMailbox, IDelayedCall] = {}
        self._left: dict[LiveMailbox, float] = {}
        """Mailboxes without a session -> since when, the oldest first."""
        self._ending: IDelayedCall | None = None
        self._parts: list[dict[LiveMailbox, None]] = [{} for _ in range(COMPARE_PARTS)]
        """Mailboxes that are compared together."""
        self._part_of: dict[LiveMailbox, int] = {}
        self._paused: dict[LiveMailbox, int] = {}
        """Mailbox -> number of changes of this worker during which it is not watched."""
        self._ended: set[int] = set()
        """Watches of paused mailboxes whose end inotify has not yet reported."""
        self._compared_part = 0
        self._comparisons = LoopingCall.withCount(self._compare_parts)
        self._comparisons.clock = clock
        try:
            self._inotify: Inotify | None = Inotify(reactor, clock, self._changed, self._poke_all)
        except OSError as error:
            log.warn(
                "no inotify ({reason}): changes by other programs are seen within {seconds} s",
                event="mailboxes-polled",
                reason=str(error),
                seconds=round(COMPARE_TIME),
            )
            self._inotify = None

    def start(self) -> None:
        """Start the regular comparisons."""
        self._comparisons.start(COMPARE_TIME / COMPARE_PARTS, now=False)

    def stop(self) -> None:
        """Stop watching everything."""
        if self._comparisons.running:
            self._comparisons.stop()
        for call in self._settling.values():
            call.cancel()
        self._settling.clear()
        self._gathered.clear()
        self._ripe.clear()
        if self._passing is not None:
            self._passing.cancel()
            self._passing = None
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def watch(self, live: LiveMailbox) -> None:
        """Watch a mailbox that a session has opened."""
        numbers = self._mailboxes.setdefault(live, [])
        if live not in self._part_of:
            part = self._part_of[live] = self._smallest_part()
            self._parts[part][live] = None
        if (self._left.pop(live, None) is None or not numbers) and live not in self._paused:
            self._begin(live, numbers)

    def _begin(self, live: LiveMailbox, numbers: list[int]) -> None:
        if self._inotify is None:
            return
        for path in live.mailbox.watched_paths:
            try:
                number = self._inotify.add(path)
            except OSError as error:
                log.warn("cannot watch {path}: {reason}", event="mailbox-polled", path=path, reason=str(error))
                continue
            numbers.append(number)
            self._watches[number] = live
        if not numbers:
            return
        if not live.is_unchanged():
            # There was no poke for changes since the mailbox was read.
            live.poked()
        if not live.settled:
            self._settle_later(live)

    def pause(self, live: LiveMailbox) -> None:
        """Do not watch it until `resume`, as this worker changes so much in it that a comparison costs less than the events.

        Changes by others meanwhile are found by the comparison at the end, or by the one two seconds later.
        """
        count = self._paused.get(live, 0)
        self._paused[live] = count + 1
        numbers = self._mailboxes.get(live)
        if count or not numbers or self._inotify is None:
            return
        for number in numbers:
            if self._watches.get(number) is live:  # as in `unwatch`
                self._inotify.remove(number)
                # Events that the kernel has queued already are still to be read.
                self._ended.add(number)
        numbers.clear()

    def resume(self, live: LiveMailbox) -> None:
        """Watch it again after the change."""
        self._paused[live] -= 1
        if self._paused[live]:
            return
        del self._paused[live]
        numbers = self._mailboxes.get(live)
        if numbers is not None:
            self._begin(live, numbers)

    def leave(self, live: LiveMailbox) -> None:
        """Note that no session has it open any more; one may come back soon."""
        self._left[live] = self._clock.seconds()
        if len(self._left) > MOST_LINGERING:
            self.unwatch(next(iter(self._left)))
        if self._ending is None:
            self._ending = self._clock.callLater(LINGER_TIME, self._end_left)

    def _end_left(self) -> None:
        self._ending = None
        now = self._clock.seconds()
        for live, since in tuple(self._left.items()):
            if since + LINGER_TIME > now:
                self._ending = self._clock.callLater(since + LINGER_TIME - now, self._end_left)
                return
            self.unwatch(live)

    def unwatch(self, live: LiveMailbox) -> None:
        """Stop watching it."""
        self._left.pop(live, None)
        self._gathered.pop(live, None)
        self._ripe.pop(live, None)
        self._used.pop(live, None)
        part = self._part_of.pop(live, None)
        if part is not None:
            del self._parts[part][live]
        for number in self._mailboxes.pop(live, ()):
            # The kernel has one number for a directory: another mailbox object may have it by now.
            if self._watches.get(number) is live:
                del self._watches[number]
                if self._inotify is not None:
                    self._inotify.remove(number)
        for number in self._ended:
            if self._watches.get(number) is live:
                del self._watches[number]
        call = self._settling.pop(live, None)
        if call is not None:
            call.cancel()

    def _changed(self, watch: int, names: Sequence[str] | None, arrived: Collection[str]) -> None:
        if names is None and watch in self._ended:
            self._ended.remove(watch)
            self._watches.pop(watch, None)
            return
        live = self._watches.get(watch)
        if live is None:
            return
        foreign = None if names is None else live.mailbox.foreign_names(names)
        if live in self._left and (foreign is None or foreign):
            # No session waits for the change, and the next one reads the mailbox: further events would say nothing more.
            live.poked()
            self.unwatch(live)
            return
        if foreign is None:
            live.poked()
        elif foreign:
            self._sort(live, foreign, arrived)
        self._settle_later(live)

    def _sort(self, live: LiveMailbox, names: Collection[str], arrived: Collection[str]) -> None:
        """Pass on the names of other programs, and gather those that may be another worker's."""
        if not self._gather:
            self._pass(live, names)
            return
        deliveries = [name for name in arrived if not live.mailbox.is_own_name(name)]
        if deliveries:
            self._pass(live, deliveries)
        rest = set(names).difference(deliveries)
        if rest:
            self._gather_names(live, rest)

    def _pass(self, live: LiveMailbox, names: Collection[str]) -> None:
        """Pass names on now, or gather them after too many passes."""
        now = self._clock.seconds()
        used = max(now, self._used.get(live, now))
        if used - now > (BURST - 1) * REFILL_TIME:
            self._gather_names(live, names)
        elif live.poked(names):
            self._used[live] = used + REFILL_TIME

    def _gather_names(self, live: LiveMailbox, names: Collection[str]) -> None:
        now, period = self._clock.seconds(), self._gather or GATHER_TIME
        if self._passing is None:
            self._passing = self._clock.callLater(period, self._pass_on)
        gathered = self._ripe if self._passing.getTime() >= now + period else self._gathered
        gathered.setdefault(live, set()).update(names)

    def _pass_on(self) -> None:
        """Pass on names that were gathered for a whole GATHER_TIME at least."""
        self._passing = None
        ripe, self._ripe, self._gathered = self._ripe, self._gathered, {}
        if self._ripe:
            self._passing = self._clock.callLater(self._gather or GATHER_TIME, self._pass_on)
        for live, names in ripe.items():
            live.poked(names)

    def _settle_later(self, live: LiveMailbox) -> None:
        settling = self._settling.get(live)
        if settling is None:
            self._settling[live] = self._clock.callLater(SETTLE_TIME, self._settle, live)
        else:
            settling.reset(SETTLE_TIME)

    def _settle(self, live: LiveMailbox) -> None:
        del self._settling[live]
        live.poked()

    def _smallest_part(self) -> int:
        """Return the smallest part; of several, the one that was compared last."""
        latest_first = [(self._compared_part - back) % COMPARE_PARTS for back in range(COMPARE_PARTS)]
        return min(latest_first, key=lambda part: len(self._parts[part]))

    def _compare_parts(self, count: int) -> None:
        for _ in range(min(count, COMPARE_PARTS)):
            self._compared_part = (self._compared_part + 1) % COMPARE_PARTS
            for live in tuple(self._parts[self._compared_part]):
                # A few stats. Only what they do not prove takes a hop to the account's thread, and its index.
                if not live.is_current(live.mailbox.name):
                    live.poked()

    def _poke_all(self) -> None:
        # The event that a watch has ended may be among the lost ones.
        for number in self._ended:
            self._watches.pop(number, None)
        self._ended.clear()
        for live in tuple(self._mailboxes):
            live.poked()
