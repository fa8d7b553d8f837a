"""Mailboxes that are selected again, and STATUS asked again, while nobody has changed anything."""

from __future__ import annotations

import pytest
from attrs import evolve

from mailserver.errors import StoreUnavailable
from mailserver.store.memory import MemoryMailbox
from tests.store.live.world import Task, World, record_refreshes
from tests.store.samples import put


class StubStamp:
    """Stands for a stamp; the test says what the disk looks like."""

    def __init__(self, name: str, *, settled: bool = True) -> None:
        self.name = name
        self.settled = settled
        self.same = True

    def unchanged(self, name: str) -> bool:
        return self.same and name == self.name


@pytest.fixture
def stamp(monkeypatch) -> StubStamp:
    """Of all that is read of INBOX."""
    stamp = StubStamp("INBOX")
    for method in ("load", "changes_since", "status"):
        real = getattr(MemoryMailbox, method)
        monkeypatch.setattr(
            MemoryMailbox, method, lambda self, *given, real=real: evolve(real(self, *given), stamp=stamp)
        )
    return stamp


def hops(world: World) -> int:
    return sum(runner.ran for runner in world.runners)


def test_a_mailbox_that_nobody_changed_is_selected_without_a_hop(world, stamp, account, live):
    ran = hops(world)
    assert Task(account.select("INBOX")).result() is live
    assert live.users == 2
    account.release(live)
    account.release(live)
    assert account.select_at_once("INBOX") is live
    assert live.users == 1
    assert hops(world) == ran


def test_what_a_change_left_is_selected_without_a_hop(world, stamp, account, live):
    world.do(live.change(lambda mailbox: mailbox.expunge([1], only_deleted=False)))
    ran = hops(world)
    assert list(Task(account.select("INBOX")).result().columns.uids) == [2, 3]
    assert hops(world) == ran


def test_a_mailbox_that_changed_is_read_before_the_answer(world, stamp, memory, account, live):
    put(memory)
    stamp.same = False
    task = Task(account.select("INBOX"))
    assert not task.done
    world.settle()
    assert list(task.result().columns.uids) == [1, 2, 3, 4]


@pytest.mark.parametrize("doubt", ["not settled", "poked", "being read", "dropped", "another name"])
def test_a_mailbox_in_doubt_is_not_answered_at_once(world, stamp, account, live, doubt):
    name = "INBOX"
    if doubt == "not settled":
        stamp.settled = False
    elif doubt == "poked":
        live.poked()
    elif doubt == "being read":
        live.poked()
        Task(live.refresh())
    elif doubt == "dropped":
        account.forget(live.id)
    else:
        name = "elsewhere"
    assert account.select_at_once(name) is None


def test_selecting_takes_up_what_was_poked_before(world, stamp, memory, account, live):
    put(memory)
    live.poked(["name"])
    task = Task(account.select("INBOX"))
    assert live.unsettled
    live.poked(["another"])
    world.settle()
    assert task.done
    assert live.stale, "what came while it was read is looked at again"
    world.do(account.select("INBOX"))
    assert not live.stale


def test_selecting_that_fails_leaves_the_poke(world, stamp, account, live, monkeypatch):
    live.poked(["name"])
    with monkeypatch.context() as patch:
        patch.setattr(MemoryMailbox, "refresh", lambda _self, **_: (_ for _ in ()).throw(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            world.do(account.select("INBOX"))
    assert live.stale
    looked = record_refreshes(monkeypatch)
    world.do(live.refresh())
    assert looked == [None]


def test_status_asked_again_costs_no_hop(world, stamp, memory, account):
    put(memory)
    first = world.do(account.status("INBOX"))
    ran = hops(world)
    assert Task(account.status("INBOX")).result() is first
    assert hops(world) == ran
    put(memory)
    stamp.same = False
    assert world.do(account.status("INBOX")).messages == first.messages + 1


def test_status_in_doubt_is_asked_of_the_store(world, stamp, memory, account):
    stamp.settled = False
    assert world.do(account.status("INBOX")).messages == 0
    put(memory)
    assert world.do(account.status("INBOX")).messages == 1
