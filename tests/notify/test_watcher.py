"""Foreign changes poke the mailbox they touch: real inotify, the reactor's clock in the test's hand."""

from __future__ import annotations

import os
import select
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailserver.notify.inotify import PAUSE
from mailserver.notify.watcher import (
    BURST,
    COMPARE_PARTS,
    COMPARE_TIME,
    GATHER_TIME,
    LINGER_TIME,
    MOST_LINGERING,
    REFILL_TIME,
    SETTLE_TIME,
    Watcher,
)
from mailserver.store.maildir.format.filename import is_own, new_base


class Reactor:
    """Keeps the reader; the test lets it read."""

    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def turn(self) -> None:
        for reader in tuple(self.readers):
            while select.select([reader.fileno()], [], [], 0.2)[0]:
                reader.doRead()


class Mailbox:
    is_own_name = staticmethod(is_own)
    name = "INBOX"

    def __init__(self, path: Path) -> None:
        self.own: set[str] = set()
        self.watched_paths = (str(path / "cur"), str(path / "new"))
        for each in self.watched_paths:
            os.makedirs(each)

    def foreign_names(self, names: Collection[str]) -> Collection[str]:
        return [name for name in names if name not in self.own]


class Live:
    """Stands for a LiveMailbox: remembers its pokes."""

    def __init__(self, path: Path) -> None:
        self.mailbox = Mailbox(path)
        self.pokes: list[list[str] | None] = []
        self.unchanged = False
        self.settled = True

    def is_unchanged(self) -> bool:
        return self.unchanged

    def is_current(self, name: str) -> bool:
        assert name == self.mailbox.name
        return self.unchanged and self.settled

    def poked(self, names: Collection[str] | None = None) -> bool:
        self.pokes.append(None if names is None else sorted(names))
        return True


@pytest.fixture
def world(tmp_path: Path) -> Any:
    reactor, clock = Reactor(), Clock()
    watcher = Watcher(reactor, clock)
    watcher.start()
    yield reactor, clock, watcher, Live(tmp_path / "a"), Live(tmp_path / "b"), tmp_path
    watcher.stop()
    assert reactor.readers == []


def test_a_delivery_pokes_its_mailbox_with_the_name_and_settles_later(world: Any) -> None:
    reactor, clock, watcher, first, second, path = world
    watcher.watch(first)
    watcher.watch(second)
    (path / "msg").write_bytes(b"x")
    os.rename(path / "msg", path / "a/new/1.M1.host")
    reactor.turn()
    assert first.pokes == [None, ["1.M1.host"]]
    assert second.pokes == [None]
    clock.advance(SETTLE_TIME)
    assert first.pokes == [None, ["1.M1.host"], None]


def test_what_came_before_the_watch_was_set_is_looked_for(world: Any) -> None:
    reactor, _clock, watcher, first, _second, path = world
    (path / "a/new/1.host").write_bytes(b"x")  # after the session's reading of the mailbox
    watcher.watch(first)
    reactor.turn()
    assert first.pokes == [None]


def test_nothing_is_looked_for_where_the_mailbox_looks_as_it_was_read(world: Any) -> None:
    _reactor, clock, watcher, first, _second, _path = world
    first.unchanged = True
    watcher.watch(first)
    clock.advance(SETTLE_TIME)
    assert first.pokes == []


def test_a_mailbox_read_while_it_was_fresh_is_compared_whole_later(world: Any) -> None:
    _reactor, clock, watcher, first, _second, _path = world
    first.unchanged, first.settled = True, False
    watcher.watch(first)
    assert first.pokes == []
    clock.advance(SETTLE_TIME)
    assert first.pokes == [None]


def test_the_watch_outlives_the_last_session_for_a_while(world: Any) -> None:
    reactor, clock, watcher, first, second, path = world
    first.unchanged = second.unchanged = True
    watcher.watch(first)
    watcher.watch(second)
    watcher.leave(first)
    clock.advance(LINGER_TIME / 2)
    watcher.leave(second)
    first.unchanged = False
    watcher.watch(first)
    assert first.pokes == [], "it was watched all the time"
    clock.advance(LINGER_TIME)
    (path / "a/new/2.host").write_bytes(b"x")
    (path / "b/new/3.host").write_bytes(b"x")
    reactor.turn()
    assert first.pokes[-1] == ["2.host"]
    assert second.pokes == []


def test_the_first_change_by_others_ends_a_watch_without_a_session(world: Any) -> None:
    reactor, clock, watcher, first, _second, path = world
    first.unchanged = True
    first.mailbox.own.add("own.host")
    watcher.watch(first)
    watcher.leave(first)
    (path / "a/new/own.host").write_bytes(b"x")
    reactor.turn()
    assert first.pokes == []
    (path / "a/new/1.host").write_bytes(b"x")
    clock.advance(PAUSE)
    assert first.pokes == [None], "the next session reads the mailbox whole"
    (path / "a/new/2.host").write_bytes(b"x")
    clock.advance(PAUSE)
    clock.advance(PAUSE)
    clock.advance(SETTLE_TIME)
    assert first.pokes == [None]
    watcher.watch(first)
    (path / "a/new/3.host").write_bytes(b"x")
    reactor.turn()
    assert first.pokes == [None, ["3.host"]]


def test_the_watches_without_a_session_are_bounded(world: Any) -> None:
    reactor, _clock, watcher, _first, _second, path = world
    lives = [Live(path / f"m{number}") for number in range(MOST_LINGERING + 1)]
    for live in lives:
        live.unchanged = True
        watcher.watch(live)
        live.unchanged = False
        watcher.leave(live)
    for number in (0, MOST_LINGERING):
        (path / f"m{number}/new/1.host").write_bytes(b"x")
    reactor.turn()
    assert lives[0].pokes == []
    assert lives[-1].pokes == [None]


def test_renames_and_removals_are_told(world: Any) -> None:
    reactor, _clock, watcher, first, _second, path = world
    (path / "a/cur/1.host:2,").write_bytes(b"x")
    watcher.watch(first)
    os.rename(path / "a/cur/1.host:2,", path / "a/cur/1.host:2,S")
    os.unlink(path / "a/cur/1.host:2,S")
    reactor.turn()
    assert first.pokes == [None, ["1.host:2,", "1.host:2,S", "1.host:2,S"]]


def test_what_follows_wakes_nobody_and_is_read_together(world: Any) -> None:
    reactor, clock, watcher, first, second, path = world
    first.unchanged = second.unchanged = True
    watcher.watch(first)
    watcher.watch(second)
    (path / "a/new/1.host").write_bytes(b"x")
    reactor.turn()
    assert first.pokes == [["1.host"]], "the first is told at once"
    assert reactor.readers == []
    for number in range(2, 5):
        (path / f"a/new/{number}.host").write_bytes(b"x")
    (path / "b/new/1.host").write_bytes(b"x")
    clock.advance(PAUSE)
    assert first.pokes[1:] == [["2.host", "3.host", "4.host"]]
    assert second.pokes == [["1.host"]]
    assert reactor.readers == [], "more may follow"
    clock.advance(PAUSE)
    assert len(reactor.readers) == 1
    (path / "a/new/5.host").write_bytes(b"x")
    reactor.turn()
    assert first.pokes[2:] == [["5.host"]]


def test_a_pause_in_which_hardly_anything_came_is_the_last(world: Any) -> None:
    reactor, clock, watcher, first, _second, path = world
    first.unchanged = True
    first.mailbox.own.update({"1.host", "1.host:2,"})
    watcher.watch(first)
    (path / "a/new/1.host").write_bytes(b"x")
    reactor.turn()
    os.rename(path / "a/new/1.host", path / "a/cur/1.host:2,")
    clock.advance(PAUSE)
    assert len(reactor.readers) == 1, "no third reading for nothing"


def test_while_much_is_changed_from_here_nothing_is_told_and_afterwards_it_is_looked_for(world: Any) -> None:
    reactor, clock, watcher, first, _second, path = world
    first.unchanged = True
    watcher.watch(first)
    (path / "a/new/1.host").write_bytes(b"x")
    watcher.pause(first)
    (path / "a/new/2.host").write_bytes(b"x")
    first.unchanged, first.settled = False, False
    watcher.resume(first)
    assert first.pokes == [None], "somebody else may have come in between"
    (path / "a/new/3.host").write_bytes(b"x")
    reactor.turn()
    assert sorted(first.pokes[1:]) == [["1.host"], ["3.host"]], "what came before is told, and what comes now"
    first.pokes.clear()
    clock.advance(SETTLE_TIME)
    assert first.pokes == [None]


def test_a_pause_ends_with_the_last_change_that_made_it(world: Any) -> None:
    reactor, clock, watcher, first, _second, path = world
    first.unchanged = True
    watcher.watch(first)
    watcher.pause(first)
    watcher.pause(first)
    watcher.resume(first)
    (path / "a/new/1.host").write_bytes(b"x")
    watcher.leave(first)
    watcher.watch(first)
    (path / "a/new/2.host").write_bytes(b"x")
    reactor.turn()
    assert first.pokes == []
    watcher.resume(first)
    (path / "a/new/3.host").write_bytes(b"x")
    clock.advance(PAUSE)
    assert first.pokes == [["3.host"]]


def test_a_mailbox_that_is_kept_no_longer_is_not_watched_after_a_pause(world: Any) -> None:
    reactor, clock, watcher, first, _second, path = world
    first.unchanged = True
    watcher.watch(first)
    (path / "a/new/1.host").write_bytes(b"x")
    watcher.pause(first)
    watcher.unwatch(first)
    watcher.resume(first)
    (path / "a/new/2.host").write_bytes(b"x")
    reactor.turn()
    clock.advance(SETTLE_TIME)
    assert first.pokes == []


def test_no_watch_is_remembered_whose_end_was_lost_among_too_many_events(world: Any) -> None:
    _reactor, _clock, watcher, first, _second, _path = world
    watcher.watch(first)
    watcher.pause(first)
    watcher._poke_all()
    watcher.resume(first)
    watcher.unwatch(first)
    assert not watcher._watches
    assert not watcher._ended


def test_a_pause_ends_no_watch_that_another_mailbox_object_has_taken_over(world: Any) -> None:
    reactor, _clock, watcher, first, second, path = world
    second.mailbox.watched_paths = first.mailbox.watched_paths
    second.unchanged = True
    watcher.watch(first)
    watcher.watch(second)
    watcher.pause(first)
    (path / "a/new/1.host").write_bytes(b"x")
    reactor.turn()
    assert second.pokes == [["1.host"]]


def test_nothing_is_told_once_unwatched(world: Any) -> None:
    reactor, clock, watcher, first, _second, path = world
    watcher.watch(first)
    (path / "a/new/1.host").write_bytes(b"x")
    reactor.turn()
    watcher.unwatch(first)
    before = list(first.pokes)
    (path / "a/new/2.host").write_bytes(b"x")
    reactor.turn()
    clock.advance(SETTLE_TIME * 2)
    assert first.pokes == before


def test_a_directory_that_goes_does_not_end_the_watching_of_others(world: Any) -> None:
    reactor, clock, watcher, first, second, path = world
    watcher.watch(first)
    watcher.watch(second)
    os.rmdir(path / "a/new")
    reactor.turn()
    assert first.pokes[1:] == [None] * len(first.pokes[1:]) != []
    (path / "b/new/1.host").write_bytes(b"x")
    clock.advance(PAUSE)
    assert second.pokes == [None, ["1.host"]]


def test_every_watched_mailbox_is_looked_at_from_time_to_time(world: Any) -> None:
    _reactor, clock, watcher, first, _second, _path = world
    watcher.watch(first)
    clock.advance(COMPARE_TIME)
    assert first.pokes == [None, None]


def test_the_regular_look_at_a_mailbox_that_has_not_changed_takes_no_hop(world: Any) -> None:
    _reactor, clock, watcher, first, second, _path = world
    first.unchanged = second.unchanged = True
    watcher.watch(first)
    watcher.watch(second)
    second.settled = False
    clock.pump([COMPARE_TIME / COMPARE_PARTS] * 3 * COMPARE_PARTS)
    assert first.pokes == []
    assert len(second.pokes) == 3, "its stamp proves nothing"


def test_a_missing_directory_leaves_the_regular_looks(world: Any) -> None:
    _reactor, clock, watcher, first, _second, path = world
    os.rmdir(path / "a/new")
    watcher.watch(first)
    clock.advance(COMPARE_TIME)
    assert first.pokes == [None, None]


def test_looks_are_spread_and_each_mailbox_has_its_turn(tmp_path: Path) -> None:
    clock = Clock()
    watcher = Watcher(Reactor(), clock)
    watcher.start()
    lives = [Live(tmp_path / str(number)) for number in range(2 * COMPARE_PARTS)]
    for live in lives:
        live.unchanged = True
        watcher.watch(live)
        live.unchanged = False
    watcher.unwatch(lives.pop())
    for turn in range(1, COMPARE_PARTS + 1):
        clock.advance(COMPARE_TIME / COMPARE_PARTS)
        assert sum(len(live.pokes) for live in lives) in {2 * turn, 2 * turn - 1}
    assert [live.pokes for live in lives] == [[None]] * len(lives)
    watcher.stop()


@pytest.fixture
def gathering(tmp_path: Path) -> Any:
    reactor, clock = Reactor(), Clock()
    watcher = Watcher(reactor, clock, gather=GATHER_TIME)
    live = Live(tmp_path / "a")
    live.unchanged = True
    watcher.watch(live)
    yield reactor, clock, watcher, live, tmp_path / "a/new"
    watcher.stop()
    assert clock.getDelayedCalls() == []


def test_names_are_gathered_where_other_workers_may_be_behind_them(gathering: Any) -> None:
    reactor, clock, _watcher, live, new = gathering
    names = [new_base() for _ in range(20)]
    for name in names:
        (new / name).write_bytes(b"x")
    reactor.turn()
    assert live.pokes == []
    clock.advance(GATHER_TIME)
    assert live.pokes == [sorted(names)]
    later = new_base()
    (new / later).write_bytes(b"x")
    reactor.turn()
    clock.advance(GATHER_TIME)
    assert live.pokes[1:] == [[later]]
    clock.advance(SETTLE_TIME)
    assert live.pokes[2:] == [None], "compared whole once all is quiet"


def test_own_changes_set_no_timer_but_that_of_the_comparison(gathering: Any) -> None:
    reactor, clock, _watcher, live, new = gathering
    live.mailbox.own = {"own"}
    (new / "own").write_bytes(b"x")
    reactor.turn()
    clock.advance(PAUSE)
    assert [call.getTime() - clock.seconds() for call in clock.getDelayedCalls()] == [
        pytest.approx(SETTLE_TIME - PAUSE)
    ]
    assert live.pokes == []


def test_a_name_that_comes_late_is_gathered_as_long_as_the_first(gathering: Any) -> None:
    reactor, clock, _watcher, live, new = gathering
    first, second = new_base(), new_base()
    (new / first).write_bytes(b"x")
    reactor.turn()
    clock.advance(GATHER_TIME - 0.001)
    (new / second).write_bytes(b"x")
    reactor.turn()
    clock.advance(0.001)
    assert live.pokes == [[first]]
    clock.advance(GATHER_TIME - 0.001)
    assert live.pokes == [[first]]
    clock.advance(0.001)
    assert live.pokes == [[first], [second]]


def test_the_delivery_of_another_program_waits_for_no_timer(gathering: Any) -> None:
    reactor, _clock, _watcher, live, new = gathering
    (new.parent / "msg").write_bytes(b"x")
    os.rename(new.parent / "msg", new / "1700000000.M1P1.host,S=1,W=1")
    reactor.turn()
    assert live.pokes == [["1700000000.M1P1.host,S=1,W=1"]]


def test_renames_may_be_of_other_workers_and_are_gathered(gathering: Any) -> None:
    reactor, clock, _watcher, live, new = gathering
    (new / "1").write_bytes(b"x")
    reactor.turn()
    os.rename(new / "1", new.parent / "cur/1:2,S")
    (new / "2").write_bytes(b"x")
    clock.advance(PAUSE)
    assert live.pokes == [["1"], ["2"]]
    clock.advance(GATHER_TIME)
    assert live.pokes[2:] == [["1", "1:2,S"]]


@pytest.mark.parametrize("gather", [0.0, GATHER_TIME])
def test_a_storm_of_deliveries_reads_a_mailbox_a_bounded_number_of_times(tmp_path: Path, gather: float) -> None:
    reactor, clock = Reactor(), Clock()
    watcher = Watcher(reactor, clock, gather=gather)
    live, other = Live(tmp_path / "a"), Live(tmp_path / "b")
    live.unchanged = other.unchanged = True
    watcher.watch(live)
    watcher.watch(other)
    reading = reactor.readers[0]
    for number in range(1000):
        (tmp_path / f"a/new/{number:04}").write_bytes(b"x")
        if reactor.readers:
            reading.doRead()
        clock.advance(0.001)
    (tmp_path / "b/new/1").write_bytes(b"x")
    clock.advance(PAUSE)
    assert other.pokes == [["1"]], "a storm elsewhere delays it by one pause at most"
    clock.advance(GATHER_TIME)
    clock.advance(GATHER_TIME)
    assert live.pokes[0] == ["0000"]
    assert sorted(name for names in live.pokes if names is not None for name in names) == [
        f"{n:04}" for n in range(1000)
    ]
    assert len(live.pokes) <= BURST + 1.0 / REFILL_TIME + 1.0 / GATHER_TIME
    watcher.stop()


def test_own_changes_use_up_nothing_of_what_others_may_pass(world: Any) -> None:
    reactor, clock, watcher, first, _second, path = world
    first.unchanged = True
    watcher.watch(first)
    first.mailbox.own = {str(number) for number in range(2 * BURST)}
    for number in range(2 * BURST):
        (path / f"a/new/{number}").write_bytes(b"x")
        reactor.turn()
        clock.advance(PAUSE)
        clock.advance(PAUSE)
    assert first.pokes == []
    (path / "a/new/foreign").write_bytes(b"x")
    reactor.turn()
    assert first.pokes[-1] == ["foreign"]


def test_what_was_gathered_for_a_mailbox_goes_with_its_watch(gathering: Any) -> None:
    reactor, clock, watcher, live, new = gathering
    (new / new_base()).write_bytes(b"x")
    reactor.turn()
    watcher.unwatch(live)
    clock.advance(2 * SETTLE_TIME)
    assert live.pokes == []
