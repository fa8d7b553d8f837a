"""Pokes over real datagram sockets; the reactor and its clock are in the test's hand."""

from __future__ import annotations

import select
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailserver.net.ipc.pokes import AGAIN_AFTER, CHECKED_A_TURN, ID_SIZE, MOST_IDS, Pokes
from mailserver.types import MailboxId, account_id
from tests.links import Links

TURN = 1e-6
USER = "anna@example.test"


def guid(number: int) -> MailboxId:
    return MailboxId(number.to_bytes(ID_SIZE, "big"))


class Live:
    def __init__(self) -> None:
        self.pokes: list[Collection[str] | None] = []

    def poked(self, names: Collection[str] | None = None) -> None:
        self.pokes.append(names)


class Turns(Clock):
    """What is called later, even at once, comes in the next turn, as with a reactor."""

    def callLater(self, delay: float, what: Callable[..., object], *args: object, **kw: object) -> Any:
        return super().callLater(max(delay, TURN), what, *args, **kw)

    def turn(self) -> None:
        self.advance(TURN)


class Worker:
    """One worker's mailboxes, and its reactor."""

    def __init__(self, links: Links, worker: int, clock: Turns) -> None:
        self.link = links[worker]
        self.readers: list[Any] = []
        self.open: dict[MailboxId, list[Live]] = {}
        self.follows = False
        self.followed: list[set[MailboxId] | None] = []
        self.pokes = Pokes(self.link, self, clock)
        self.pokes.start(self)

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def having_any(self, mailboxes: Iterable[MailboxId]) -> list[Live]:
        return [live for mailbox in mailboxes for live in self.open.get(mailbox, [])]

    def all_open(self) -> list[Live]:
        return [live for lives in self.open.values() for live in lives]

    def poke_followed(self, ids: Collection[MailboxId]) -> None:
        if account_id(USER) in ids and self.follows:
            self.followed.append(set(ids))

    def check_followed(self) -> None:
        if self.follows:
            self.followed.append(None)

    def follow(self) -> None:
        self.follows = True
        self.link.open_mailboxes.opened(account_id(USER))

    def opened(self, number: int) -> Live:
        live = Live()
        self.open.setdefault(guid(number), []).append(live)
        self.link.open_mailboxes.opened(guid(number))
        return live

    def read(self) -> int:
        """Let it read what is there; how often it was called."""
        reads = 0
        while self.readers and select.select(self.readers, [], [], 0)[0]:
            reads += 1
            self.readers[0].doRead()
        return reads


@pytest.fixture
def clock() -> Turns:
    return Turns()


@pytest.fixture
def links() -> Iterator[Links]:
    links = Links(3)
    yield links
    links.close()


@pytest.fixture
def workers(links: Links, clock: Turns) -> Iterator[list[Worker]]:
    workers = [Worker(links, worker, clock) for worker in range(3)]
    yield workers
    for worker in workers:
        worker.pokes.stop()
        assert worker.readers == []
    assert clock.getDelayedCalls() == []


def test_a_change_reaches_who_has_the_mailbox_open_in_any_account(workers: list[Worker], clock: Turns) -> None:
    first, second, third = workers
    own, there, copied, other = first.opened(1), second.opened(1), second.opened(1), third.opened(2)
    first.pokes.send(USER, guid(1))
    clock.turn()
    for worker in workers:
        worker.read()
    assert there.pokes == copied.pokes == [()], "the files need no look"
    assert own.pokes == other.pokes == []


def test_a_change_is_flagged_before_the_poke_and_the_poke_clears_the_flag(workers: list[Worker], clock: Turns) -> None:
    first, second, _ = workers
    there = second.opened(1)
    changed = second.link.open_mailboxes.change_flag(guid(1))
    first.pokes.send(USER, guid(1))
    assert changed()
    assert there.pokes == []
    clock.turn()
    second.read()
    assert there.pokes == [()]
    assert not changed()


def test_a_change_of_what_no_other_worker_has_open_wakes_none(workers: list[Worker], clock: Turns) -> None:
    first, second, third = workers
    first.opened(1)
    second.opened(2)
    first.pokes.send(USER, guid(1))
    assert clock.getDelayedCalls() == []
    first.pokes.send(USER, guid(2))
    clock.turn()
    assert [worker.read() for worker in (second, third)] == [1, 0]


def test_the_changes_of_one_turn_are_one_datagram_with_each_mailbox_once(workers: list[Worker], clock: Turns) -> None:
    first, second, _ = workers
    lives = [second.opened(number) for number in range(5)]
    for number in (0, 1, 2, 3, 4, 0, 0):
        first.pokes.send(USER, guid(number))
    clock.turn()
    datagram = second.link.poke_receive.recv(65536)
    assert len(datagram) == 5 * ID_SIZE
    first.link.poke_send[1].send(datagram)
    second.read()
    assert [live.pokes for live in lives] == [[()]] * 5


def test_very_many_changes_in_one_turn_are_told_as_one_check(workers: list[Worker], clock: Turns) -> None:
    first, second, _ = workers
    last, unchanged = second.opened(MOST_IDS + 1), second.opened(9999)
    for number in range(MOST_IDS + 2):
        second.link.open_mailboxes.opened(guid(number))
        first.pokes.send(USER, guid(number))
    clock.turn()
    second.read()
    clock.turn()
    assert last.pokes == unchanged.pokes == [()]


def test_a_worker_that_does_not_read_is_told_to_check_all_once_it_does(workers: list[Worker], clock: Turns) -> None:
    first, second, third = workers
    last, lost, elsewhere = second.opened(1), second.opened(9999), third.opened(9999)
    for number in range(10_000):  # far more than a socket holds
        second.link.open_mailboxes.opened(guid(number))
        first.pokes.send(USER, guid(number))
        clock.turn()
        third.read()
    clock.advance(10 * AGAIN_AFTER)  # it still does not read: it is tried, in vain, and no ids are kept for it
    assert last.pokes == lost.pokes == []
    second.read()
    assert lost.pokes == [], "what came after the socket was full is not in it"
    clock.advance(AGAIN_AFTER)
    second.read()
    clock.turn()
    assert last.pokes[-1] == lost.pokes[-1] == ()
    assert set(elsewhere.pokes) == {()}, "others are told as ever"
    # Level again: ids go there as before.
    before = len(lost.pokes)
    first.pokes.send(USER, guid(1))
    clock.turn()
    second.read()
    assert last.pokes[-1] == ()
    assert len(lost.pokes) == before


def test_after_a_worker_has_died_all_that_is_open_is_compared_with_the_disk(
    links: Links, workers: list[Worker], clock: Turns
) -> None:
    _first, second, third = workers
    lives = [second.opened(1), third.opened(2)]
    links.end(0)
    clock.turn()
    assert [live.pokes for live in lives] == [[None], [None]]
    second.pokes.send(USER, guid(2))
    clock.turn()
    third.read()
    assert lives[1].pokes == [None, ()]


def test_a_change_told_while_a_worker_dies_harms_nobody(links: Links, workers: list[Worker], clock: Turns) -> None:
    first, _second, third = workers
    live = third.opened(1)
    links[1].poke_receive.close()  # dead, and the master has not told so yet
    # The kernel has another word for it each time: ECONNREFUSED, then ENOTCONN.
    for count in (1, 2, 3):
        first.pokes.send(USER, guid(1))
        clock.turn()
        third.read()
        assert live.pokes == [()] * count
    clock.advance(AGAIN_AFTER)
    assert clock.getDelayedCalls() == []


def test_a_check_of_much_leaves_turns_to_others_and_is_not_repeated(
    links: Links, workers: list[Worker], clock: Turns
) -> None:
    second = workers[1]
    lives = [second.opened(number) for number in range(3 * CHECKED_A_TURN)]
    links.end(0)
    links.end(2)
    clock.turn()
    assert sum(len(live.pokes) for live in lives) == CHECKED_A_TURN
    for _ in range(5):
        clock.turn()
    assert [live.pokes for live in lives] == [[None]] * len(lives)


@pytest.mark.parametrize("datagram", [b"", b"*", b"x" * 15, b"x" * 17])
def test_what_is_no_list_of_ids_means_a_check(workers: list[Worker], clock: Turns, datagram: bytes) -> None:
    first, second, _ = workers
    live = second.opened(1)
    first.link.poke_send[1].send(datagram)
    second.read()
    clock.turn()
    assert live.pokes == [()]


def test_a_worker_that_follows_the_account_gets_every_change_of_it_once(workers: list[Worker], clock: Turns) -> None:
    first, second, third = workers
    second.follow()
    third.opened(2)
    first.pokes.send(USER, guid(1))
    first.pokes.send(USER, guid(1))
    first.pokes.send("bert@example.test", guid(3))
    first.pokes.send(USER, account_id(USER))
    clock.turn()
    for worker in workers:
        worker.read()
    assert second.followed == [{guid(1), account_id(USER)}]
    assert first.followed == third.followed == []


def test_after_too_many_changes_followed_accounts_are_compared_whole(workers: list[Worker], clock: Turns) -> None:
    first, second, _third = workers
    second.follow()
    for number in range(1, MOST_IDS + 2):
        first.pokes.send(USER, guid(number))
    clock.turn()
    second.read()
    assert second.followed == [None]
