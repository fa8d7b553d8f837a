"""The reactor's turn, without a context of its own for each event.

Twisted calls whoever has something to read or write within a context that names him in the lines that are logged meanwhile:
nine calls and two copied dictionaries, a tenth of what a short command costs. The lines of this server say by themselves
whose they are.

Who has begun something goes on with it before others begin: under load a turn has an event of each client, and what needs
several turns would wait as long for each. So results of threads are taken between two events, and what a next hop says is
read first; and a thread that is done wakes a reactor that waits for nothing else, and no other.

Between two turns Twisted's loop looks for what threads have asked, for new and due timers and for the end, in a dozen calls.
Most turns have none of these, which four looks tell: then the next turn follows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any, Final, cast

from twisted.python.log import callWithLogger

from mailserver.net.log.events import log

_GONE: Final = EPOLLHUP | EPOLLERR
_LONGEST: Final = 1e6
"""Seconds: epoll_wait(2) takes twice as many milliseconds."""

# What an epoll reactor consists of has no public names.
# ruff: noqa: SLF001


def dispatch_directly(reactor: Any) -> None:
    """Let a reactor that waits by epoll do so from its next turn on; another kind stays as it is."""
    from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 - the zygote knows of no reactor

    if type(reactor) is EPollReactor:
        turns = _Turns(reactor)
        cast("Any", reactor).doIteration = turns.run
        cast("Any", reactor).callFromThread = turns.call_from_thread


class _Turns:
    """Those of one reactor."""

    __slots__ = ("_asleep", "_reactor")

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._asleep = False
        """May it be waiting for events, with nobody having woken it?"""

    def call_from_thread(self, function: Callable[..., object], *arguments: object, **named: object) -> None:
        """As Twisted's, which wakes the reactor awake or not: a call of the system, for which a thread gives Python's lock up."""
        self._reactor.threadCallQueue.append((function, arguments, named))
        if self._asleep:
            self._asleep = False
            self._reactor.wakeUp()

    def run(self, timeout: float | None) -> None:
        """As `EPollReactor.doPoll`, again and again until there is something for Twisted's loop."""
        reactor = self._reactor
        while True:
            # In this order: what a thread adds from now on wakes the reactor, what it added before is seen.
            self._asleep = True
            if reactor.threadCallQueue:
                timeout = 0
            events = reactor._poller.poll(-1 if timeout is None else timeout, len(reactor._selectables))
            self._asleep = False
            _serve(reactor, events)
            # A timeout of 0 says that something is due, or that the reactor ends.
            if (
                timeout == 0
                or reactor._newTimedCalls
                or reactor.threadCallQueue
                or reactor._justStopped
                or not reactor.running
            ):
                return
            pending = reactor._pendingTimedCalls
            timeout = pending[0].time - reactor.seconds() if pending else None
            if timeout is not None and not 0 < timeout < _LONGEST:
                return


def _serve(reactor: Any, events: Sequence[tuple[int, int]]) -> None:
    selectables = reactor._selectables
    ready = [(selectables.get(number), number, event) for number, event in events]
    if len(ready) > 1:
        ready.sort(key=lambda each: not getattr(each[0], "urgent", False))
    for selectable, number, event in ready:
        if reactor.threadCallQueue:
            reactor.runUntilCurrent()
        if selectable is None or selectables.get(number) is not selectable:
            continue  # what was done since has ended it; its number may be another's by now, whose event this is not
        if (event & _GONE and not event & EPOLLIN) or selectable.fileno() == -1:
            callWithLogger(selectable, reactor._doReadOrWrite, selectable, number, event)
            continue
        try:
            reading = bool(event & EPOLLIN)
            why = selectable.doRead() if reading else None
            if not why and event & EPOLLOUT:
                why, reading = selectable.doWrite(), False
        except BaseException as error:
            log.failure("a connection is ended for a fault", event="bug")
            why = error
        if why:
            try:
                reactor._disconnectSelectable(selectable, why, reading)
            except BaseException:
                log.failure("the end of a connection fails", event="bug")
