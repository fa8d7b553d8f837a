"""The turn without a log context, in a reactor of the tests' own that waits by epoll."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from mailserver.net.fast.reactor_turn import dispatch_directly, prefer


class End:
    """One end of a pair of sockets, of which the reactor tells."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.mine, self.other = socket.socketpair()
        self.told: list[str] = []
        self.answer: object = None
        self.fails = ""
        reactor.addReader(self)

    def fileno(self) -> int:
        return self.mine.fileno()

    def logPrefix(self) -> str:
        return "an end"

    def doRead(self) -> object:
        self.told.append("read")
        self.mine.recv(100)
        if self.fails == "read":
            raise ValueError("reading fails")
        return self.answer

    def doWrite(self) -> object:
        self.told.append("write")
        return self.answer

    def close(self) -> None:
        self.reactor.removeReader(self)
        self.mine.close()
        self.other.close()

    def connectionLost(self, reason: Failure) -> None:
        self.told.append(type(reason.value).__name__)
        if self.fails == "lost":
            raise ValueError("the end fails")


@pytest.fixture
def reactor() -> Iterator[Any]:
    made = EPollReactor()
    dispatch_directly(made)
    yield made
    made.removeAll()


@pytest.fixture
def errors() -> Iterator[list[LogEvent]]:
    seen: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            seen.append(event)

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def turn(reactor: Any) -> None:
    reactor.doIteration(0)


def test_it_reads_and_writes(reactor: Any) -> None:
    end = End(reactor)
    turn(reactor)
    assert end.told == []
    end.other.send(b"x")
    turn(reactor)
    assert end.told == ["read"]
    reactor.addWriter(end)
    turn(reactor)
    assert end.told == ["read", "write"]
    end.other.send(b"x")
    turn(reactor)
    assert end.told == ["read", "write", "read", "write"]


def test_what_says_that_it_has_ended_is_told_so_and_watched_no_more(reactor: Any) -> None:
    end = End(reactor)
    end.answer = CONNECTION_DONE
    reactor.addWriter(end)
    end.other.send(b"x")
    turn(reactor)
    turn(reactor)
    assert end.told == ["read", "ConnectionDone"]  # it is not asked to write behind that
    assert end not in reactor.getReaders() + reactor.getWriters()


def test_whose_reading_fails_is_logged_and_ended_and_the_others_go_on(reactor: Any, errors: list[LogEvent]) -> None:
    bad, good = End(reactor), End(reactor)
    bad.fails = "read"
    for end in (bad, good):
        end.other.send(b"x")
    turn(reactor)
    assert bad.told == ["read", "ValueError"]
    assert good.told == ["read"]
    assert [str(event["log_failure"].value) for event in errors] == ["reading fails"]
    assert bad not in reactor.getReaders()


def test_whose_end_fails_is_logged_and_the_others_go_on(reactor: Any, errors: list[LogEvent]) -> None:
    bad, good = End(reactor), End(reactor)
    bad.fails, bad.answer = "lost", CONNECTION_DONE
    for end in (bad, good):
        end.other.send(b"x")
    turn(reactor)
    assert bad.told == ["read", "ConnectionDone"]
    assert good.told == ["read"]
    assert [str(event["log_failure"].value) for event in errors] == ["the end fails"]


def test_a_peer_that_has_gone_is_told_as_by_twisted(reactor: Any) -> None:
    end = End(reactor)
    end.mine.shutdown(socket.SHUT_RDWR)
    end.other.close()
    reactor.removeReader(end)
    reactor.addWriter(end)
    turn(reactor)
    assert end.told == ["ConnectionLost"]


def test_one_that_another_has_closed_meanwhile_is_left_alone(reactor: Any) -> None:
    ends = [End(reactor), End(reactor)]
    for end, other in zip(ends, reversed(ends), strict=True):
        end.other.send(b"x")

        def close(other: End = other) -> None:
            reactor.removeReader(other)

        end.doRead = close  # type: ignore[method-assign]
    turn(reactor)
    assert len(reactor.getReaders()) == 1 + len([reader for reader in reactor.getReaders() if reader not in ends])


def test_who_gets_the_number_of_one_that_was_closed_meanwhile_gets_none_of_its_events(reactor: Any) -> None:
    first, second = End(reactor), End(reactor)
    number = second.fileno()
    came: list[End] = []

    def replace() -> None:
        second.close()
        came.append(End(reactor))
        reactor.removeReader(came[0])
        came[0].mine.detach()
        os.dup2(came[0].other.fileno(), number)
        came[0].mine = socket.socket(fileno=number)
        reactor.addReader(came[0])

    first.doRead = replace  # type: ignore[method-assign]
    first.other.send(b"x")
    second.other.send(b"x")
    turn(reactor)
    assert came[0].fileno() == number
    assert came[0].told == []
    assert second.told == []


def test_what_a_thread_has_done_is_taken_between_two_events(reactor: Any) -> None:
    order: list[str] = []

    class Asking(End):
        def doRead(self) -> object:
            order.append("event")
            self.reactor.callFromThread(order.append, "result")
            return super().doRead()

    for end in (Asking(reactor), Asking(reactor), Asking(reactor)):
        end.other.send(b"x")
    turn(reactor)
    assert [each for each in order if each == "event"] == ["event"] * 3
    assert order[:4] == ["event", "result"] * 2


def test_what_is_preferred_comes_first(reactor: Any) -> None:
    order: list[str] = []

    class Named(End):
        def __init__(self, reactor: Any, name: str) -> None:
            super().__init__(reactor)
            self.name = name

        def doRead(self) -> object:
            order.append(self.name)
            return super().doRead()

    ends = [Named(reactor, name) for name in ("a", "b", "hop", "c")]
    prefer(ends[2])
    for end in ends:
        end.other.send(b"x")
    turn(reactor)
    assert order == ["hop", "a", "b", "c"]


def test_a_reactor_of_another_kind_stays_as_it_is() -> None:
    clock = Clock()
    dispatch_directly(clock)
    assert not hasattr(clock, "doIteration")
