"""One turn of an epoll reactor, without a log context for each event.

Problem: Twisted calls each descriptor that is ready within a context that names it in the lines logged meanwhile: nine calls
and two copied dictionaries, a tenth of what a short command costs. The lines of this server name their connection by themselves.

Rule: running work is finished before new events are accepted. Under load a turn has an event of each client, and what needs
several turns would wait as long for each. So results of threads are taken between two events, and what a next hop sends
is read first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any, Final, cast

from twisted.python.log import callWithLogger

from mailserver.net.log.events import log

_GONE: Final = EPOLLHUP | EPOLLERR

# The parts of an epoll reactor have no public names.
# ruff: noqa: SLF001


def dispatch_directly(reactor: Any) -> None:
    """Replace the turn of a reactor that waits by epoll; another kind stays as it is."""
    from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 - the zygote loads no reactor

    if type(reactor) is EPollReactor:
        cast("Any", reactor).doIteration = partial(_turn, reactor)


def prefer(transport: Any) -> None:
    """Have a transport's events be served before those of others in the same turn."""
    transport.is_preferred = True


def _turn(reactor: Any, timeout: float | None) -> None:
    """Wait for events and serve them, as `EPollReactor.doPoll`."""
    events = reactor._poller.poll(-1 if timeout is None else timeout, len(reactor._selectables))
    _serve(reactor, events)


def _serve(reactor: Any, events: Sequence[tuple[int, int]]) -> None:
    selectables = reactor._selectables
    ready = [(selectables.get(number), number, event) for number, event in events]
    if len(ready) > 1:
        ready.sort(key=lambda each: not getattr(each[0], "is_preferred", False))
    for selectable, number, event in ready:
        if reactor.threadCallQueue:
            reactor.runUntilCurrent()
        if selectable is None or selectables.get(number) is not selectable:
            continue  # an earlier event has ended it; its number may be another's by now, whose event this is not
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
