"""Changes by other programs in mailboxes that are followed poke the account: real inotify, the clock in the test's hand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailserver.notify import account_watcher
from mailserver.notify.account_watcher import COMPARE_TIME, SETTLE_TIME, AccountWatcher
from mailserver.notify.inotify import PAUSE
from tests.notify.test_watcher import Reactor


class Changes:
    """Stands for AccountChanges: remembers its pokes."""

    def __init__(self, path: Path, *names: str) -> None:
        self.path = path
        self.counts = dict.fromkeys(names, 0)
        self.pokes: list[list[str] | None] = []
        for name in names:
            self.make(name)

    def make(self, name: str) -> None:
        for part in ("cur", "new"):
            (self.path / f".{name}" / part).mkdir(parents=True, exist_ok=True)

    def watched_paths(self, name: str) -> Sequence[str]:
        return [f"{self.path}/.{name}/cur", f"{self.path}/.{name}/new"] if name else [str(self.path)]

    def poked(self, ids: Iterable[bytes] = (), names: Iterable[str] = (), *, whole: bool = False) -> None:
        self.pokes.append(None if whole else sorted(names))

    def taken(self) -> list[list[str] | None]:
        pokes, self.pokes = self.pokes, []
        return pokes


def turn(reactor: Reactor, clock: Clock) -> None:
    """Let it read what there is, also after the pause that follows an event."""
    for _ in range(2):
        reactor.turn()
        clock.advance(2 * PAUSE)


@pytest.fixture
def world(tmp_path: Path) -> Any:
    reactor, clock = Reactor(), Clock()
    watcher = AccountWatcher(reactor, clock)
    yield reactor, clock, watcher, Changes(tmp_path, "a", "b")
    watcher.stop()
    assert reactor.readers == []
    assert clock.getDelayedCalls() == []


def test_a_delivery_pokes_with_the_name_of_its_mailbox(world: Any) -> None:
    reactor, clock, watcher, changes = world
    watcher.watch(changes)
    clock.advance(0)
    assert changes.taken() == [[], ["a"], ["b"]], "what came before the watch was set is compared"
    (changes.path / ".a/new/1.host").write_bytes(b"x")
    turn(reactor, clock)
    assert changes.taken() == [["a"]]


def test_a_new_mailbox_pokes_and_is_watched_once_it_is_followed(world: Any) -> None:
    reactor, clock, watcher, changes = world
    watcher.watch(changes)
    clock.advance(0)
    changes.taken()
    changes.make("c")
    turn(reactor, clock)
    assert changes.taken() == [[]]
    clock.advance(SETTLE_TIME)
    assert changes.taken() == [[]], "once more, when it is complete"
    changes.counts["c"] = 0
    watcher.watch(changes)
    clock.advance(0)
    assert changes.taken() == [["c"]]
    (changes.path / ".c/cur/1.host").write_bytes(b"x")
    turn(reactor, clock)
    assert changes.taken() == [["c"]]


def test_a_mailbox_that_is_gone_is_watched_no_more_and_its_new_place_is(world: Any) -> None:
    reactor, clock, watcher, changes = world
    watcher.watch(changes)
    clock.advance(0)
    os.rename(changes.path / ".a", changes.path / ".c")
    del changes.counts["a"]
    changes.counts["c"] = 0
    watcher.watch(changes)
    clock.advance(0)
    turn(reactor, clock)
    changes.taken()
    (changes.path / ".c/new/1.host").write_bytes(b"x")
    turn(reactor, clock)
    assert changes.taken() == [["c"]]


def test_other_files_of_the_root_poke_nobody(world: Any) -> None:
    reactor, clock, watcher, changes = world
    watcher.watch(changes)
    clock.advance(0)
    changes.taken()
    (changes.path / "mailserver-lock").write_bytes(b"")
    turn(reactor, clock)
    assert changes.taken() == []
    (changes.path / "subscriptions").write_bytes(b"")
    turn(reactor, clock)
    assert changes.taken() == [[]]


def test_beyond_the_bound_mailboxes_are_compared(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_watcher, "MOST_MAILBOXES", 1)
    reactor, clock, watcher, changes = world
    watcher.watch(changes)
    watcher.watch(changes)
    clock.advance(0)
    assert changes.taken() == [[], ["a"]]
    (changes.path / ".b/new/1.host").write_bytes(b"x")
    turn(reactor, clock)
    assert changes.taken() == []
    clock.advance(COMPARE_TIME)
    assert changes.taken() == [None]


def test_all_watches_end_with_the_last_account(world: Any, tmp_path: Path) -> None:
    reactor, clock, watcher, changes = world
    other = Changes(tmp_path / "other", "a")
    watcher.watch(changes)
    watcher.watch(other)
    clock.advance(0)
    watcher.unwatch(changes)
    assert len(reactor.readers) == 1
    watcher.unwatch(other)
    assert reactor.readers == []
