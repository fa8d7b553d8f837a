"""Mailboxes that are selected: their columns are shared, bounded, and gone with the mailbox."""

from __future__ import annotations

import pytest

from mailserver.errors import MailboxChanged, NoSuchMailbox
from mailserver.store.live import LEAST_MESSAGES, LiveAccount, LiveMailbox, OpenIndexes, Usage
from mailserver.store.memory import MemoryAccount, MemoryMailbox
from tests.store.live.world import USER, Task, World, pokes
from tests.store.samples import message, put, staged


def test_two_that_select_one_mailbox_at_once_share_its_columns(world, memory, account):
    put(memory)
    first, second = Task(account.select("INBOX")), Task(account.select("INBOX"))
    world.runners[0].step()
    put(memory)  # another process, between the two
    world.settle()
    assert first.result() is second.result()
    assert first.result().users == 2
    assert list(second.result().columns.uids) == [1, 2], "the second one is up to date"
    assert world.watched == [first.result()]


def test_select_again_is_up_to_date_without_loading(world, memory, account, live, monkeypatch):
    put(memory)
    monkeypatch.setattr(MemoryMailbox, "load", lambda _self: pytest.fail("loaded again"))
    assert world.do(account.select("INBOX")) is live
    assert list(live.columns.uids) == [1, 2, 3, 4]


def test_other_workers_see_it_open_before_it_is_read_and_until_the_last_session_has_left():
    events = []
    world = World(
        opening=lambda _mailbox: events.append("opening"),
        opened=lambda _mailbox: events.append("opened") or True,
        closed=lambda _mailbox: events.append("closed"),
    )
    account = world.account()
    task = Task(account.select("INBOX"))
    assert events == []
    world.settle()
    live = task.result()
    assert events == ["opening", "opened"]
    assert world.do(account.select("INBOX")) is live
    account.release(live)
    assert events == ["opening", "opened", "opening"]
    account.release(live)
    assert events == ["opening", "opened", "opening", "closed"]


def test_a_poke_that_may_have_been_missed_before_a_mailbox_was_open_is_made_up_for():
    seen = True
    world = World(opened=lambda _mailbox: seen)
    account = world.account()
    live = world.do(account.select("INBOX"))
    assert not live.stale
    account.release(live)
    seen = False
    assert world.do(account.select("INBOX")) is live
    assert live.stale


def test_a_mailbox_without_a_session_is_marked_before_it_is_compared(monkeypatch):
    events = []
    world = World(opening=lambda _mailbox: events.append("opening"))
    account = world.account()
    live = world.do(account.select("INBOX"))
    account.release(live)
    events.clear()
    monkeypatch.setattr(LiveMailbox, "is_current", lambda _self, _name: events.append("compared") or True)
    assert account.select_at_once("INBOX") is live
    assert events == ["opening", "compared"]


def test_select_what_is_not_there(world, account):
    with pytest.raises(NoSuchMailbox):
        world.do(account.select("none"))


def test_a_mailbox_dropped_while_it_is_being_selected(world, memory, account, live):
    account.release(live)
    task = Task(account.select("INBOX"))
    world.runners[0].step()  # it has read the changes for columns ...
    assert task.done
    account.release(task.result())
    task = Task(account.select("INBOX"))
    account.forget(live.id)  # ... that are no longer kept
    world.settle()
    again = task.result()
    assert again is not live
    assert again.users == 1
    assert list(again.columns.uids) == [1, 2, 3]


def kept(account: LiveAccount) -> list[LiveMailbox]:
    return list(account._mailboxes.values())


def test_columns_without_a_session_are_bounded_and_those_with_one_are_kept():
    world = World(max_unused_messages=1999)
    account = world.account()
    memory = world.store.account(USER)
    for name in ("a", "b", "c"):
        memory.create(name)
        put(memory, name)
    lives = {name: world.do(account.select(name)) for name in ("a", "b", "c")}
    account.release(lives["a"])
    account.release(lives["b"])
    assert set(kept(account)) == {lives["b"], lives["c"]}
    assert world.do(account.select("c")) is lives["c"]
    assert world.left == [lives["a"], lives["b"]]
    assert world.watched == [lives["b"], lives["c"]], "what is not kept is not watched either"
    assert world.do(account.select("b")) is lives["b"]
    account.release(lives["b"])
    assert set(kept(account)) == {lives["b"], lives["c"]}


def test_empty_mailboxes_without_a_session_are_bounded_too_across_accounts():
    """Each has its price, however many a client makes and selects."""
    world = World(max_unused_messages=3000)
    first, second = world.account(), world.do(world.accounts.open("bert@example.test"))
    for number in range(10):
        account = (first, second)[number % 2]
        account.account.create(f"m{number}")
        account.release(world.do(account.select(f"m{number}")))
    assert [live.mailbox.name for live in kept(first) + kept(second)] == ["m8", "m7", "m9"]
    account = first
    for _ in range(10):
        account.release(world.do(account.select("m8")))
    assert len(kept(first) + kept(second)) == 3, "one that is used again counts once"
    world.accounts.release(second)


def test_a_hundred_sessions_of_a_mailbox_share_its_columns(world, memory, account, live):
    views = []
    for _ in range(100):
        other = world.do(account.select("INBOX"))
        assert other is live
        views.append(other.open_view(lambda: None))
    memory.append("INBOX", [staged(memory, message("new"))])
    live.poked(())
    world.do(live.refresh())
    for view in views:
        view.sync(allow_expunge=True)
    assert {id(view.uids) for view in views} == {id(live.columns.uids)}, "none has an array of its own"
    usage = world.accounts.usage()
    assert (usage.mailboxes_in_use, usage.messages_in_use, usage.messages_kept) == (1, 4, 0)


def test_what_is_open_and_kept_is_told(world, memory, account, live):
    memory.create("a")
    account.release(world.do(account.select("a")))
    bert = world.do(world.accounts.open("bert@example.test"))
    world.accounts.release(bert)
    assert world.accounts.usage() == Usage(
        accounts_in_use=1,
        accounts_kept=1,
        indexes=2,
        mailboxes_in_use=1,
        messages_in_use=3,
        mailboxes_kept=1,
        messages_kept=LEAST_MESSAGES,
        octets_kept=0,
        files_kept=0,
    )


def test_indexes_over_the_bound_are_closed_longest_unused_first(monkeypatch):
    closed: list[str] = []
    monkeypatch.setattr(MemoryAccount, "close", lambda self: closed.append(self.user))
    world = World(open_indexes=OpenIndexes(2))
    accounts = {name: world.do(world.accounts.open(f"{name}@example.test")) for name in ("a", "b", "c")}
    world.settle()
    assert closed == ["a@example.test"], "though a session has it"
    live = world.do(accounts["a"].select("INBOX"))
    world.settle()
    assert closed == ["a@example.test", "b@example.test"]
    assert world.do(live.run(lambda mailbox: mailbox.status().messages)) == 0
    world.do(accounts["c"].select("INBOX"))
    world.settle()
    assert len(closed) == 2, "both have theirs"
    world.accounts.open_indexes.most = 1
    world.do(live.run(lambda mailbox: mailbox.status().messages))
    world.settle()
    assert closed[2:] == ["c@example.test"]


def test_what_a_closed_account_kept_counts_no_longer():
    world = World(max_unused_messages=2000, max_unused_accounts=0)
    other = world.do(world.accounts.open("bert@example.test"))
    other.release(world.do(other.select("INBOX")))
    world.accounts.release(other)
    world.settle()
    account = world.account()
    for name in ("a", "b"):
        account.account.create(name)
        account.release(world.do(account.select(name)))
    assert len(kept(account)) == 2


def test_a_mailbox_that_is_gone_is_not_kept(world, memory, account):
    memory.create("a")
    live = world.do(account.select("a"))
    memory.delete("a")
    with pytest.raises(MailboxChanged):
        world.do(live.refresh())
    account.release(live)
    assert live not in kept(account)
    assert world.watched == []


def test_a_mailbox_deleted_below_its_sessions(world, memory, account):
    memory.create("a")
    live = world.do(account.select("a"))
    memory.delete("a")
    for use in (live.refresh(), live.change(lambda mailbox: mailbox.expunge([1]))):
        with pytest.raises(MailboxChanged):
            world.do(use)
    memory.create("a")
    again = world.do(account.select("a"))
    assert again is not live
    assert world.watched == [live, again]
    account.release(live)
    assert world.watched == [again]


def test_a_mailbox_made_anew_under_the_same_id(world, memory, account):
    """Somebody restored a uidlist: the GUID is the old one, the UIDVALIDITY is not."""
    memory.create("a")
    put(memory, "a")
    old = world.do(account.select("a"))
    count, poke = pokes()
    old.open_view(poke)
    old.mailbox.deleted = True
    anew = memory._make("a")
    anew.id = old.id
    live = world.do(account.select("a"))
    assert live is not old
    assert live.columns.uid_validity == anew.uid_validity
    assert len(live.columns) == 0
    assert count, "sessions of the old one are told"
    with pytest.raises(MailboxChanged):
        world.do(old.refresh())
    assert world.do(account.select("a")) is live
