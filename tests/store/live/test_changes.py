"""The live picture of accounts: what happens while an operation is on its way to the account's thread."""

from __future__ import annotations

import pytest

from mailserver.errors import LimitReached, NoSpace, NoSuchMailbox, StoreUnavailable
from mailserver.store.flags import FlagChange
from mailserver.store.memory import MemoryAccount, MemoryMailbox
from mailserver.store.receiving import Delivery
from tests.store.live.world import USER, Task, pokes, record_refreshes
from tests.store.replay import Replay
from tests.store.samples import message, put, staged


def test_a_change_is_in_the_columns_when_it_returns_and_others_are_poked(world, live):
    count, poke = pokes()
    view = live.open_view(poke)
    world.do(live.change(lambda mailbox: mailbox.expunge([2], only_deleted=False)))
    assert list(live.columns.uids) == [1, 3]
    assert count
    assert list(view.sync(allow_expunge=True).expunged) == [(2, 2)]
    assert world.told == [(USER, live.id)]
    live.close_view(view)


def test_a_silent_change_does_not_hide_what_another_process_did(world, memory, live):
    replay = Replay(live.open_view(lambda: None))
    memory.mailbox("INBOX").store_flags([1], FlagChange.ADD, ["\\Flagged"])
    world.do(live.change(lambda mailbox: mailbox.store_flags([1, 2], FlagChange.ADD, ["\\Seen"])))
    replay.stored_silently([1, 2], "\\Seen")
    replay.sync(allow_expunge=True)
    replay.check_equal(memory.mailbox("INBOX"))


def test_a_silent_change_does_not_hide_what_came_between_reading_and_changing(world, memory, live):
    replay = Replay(live.open_view(lambda: None))

    def overtaken(mailbox: MemoryMailbox) -> object:
        memory.mailbox("INBOX").store_flags(
            [1], FlagChange.ADD, ["\\Flagged"]
        )  # another process, before we have the lock
        return mailbox.store_flags([1, 2], FlagChange.ADD, ["\\Seen"])

    world.do(live.change(overtaken))
    replay.stored_silently([1, 2], "\\Seen")
    replay.sync(allow_expunge=True)
    replay.check_equal(memory.mailbox("INBOX"))


def test_a_failed_change_pokes_as_part_of_it_may_be_done(world, live):
    count, poke = pokes()
    live.open_view(poke)

    def partly(mailbox: MemoryMailbox) -> None:
        mailbox.expunge([1], only_deleted=False)
        raise LimitReached

    with pytest.raises(LimitReached):
        world.do(live.change(partly))
    assert count
    assert live.stale
    assert world.told == [(USER, live.id)]
    world.do(live.refresh())
    assert list(live.columns.uids) == [2, 3]


def test_a_view_opened_while_a_change_is_on_its_way(world, live):
    task = Task(live.change(lambda mailbox: mailbox.expunge([1], only_deleted=False)))
    replay = Replay(live.open_view(lambda: None))
    assert replay.uids == [1, 2, 3]
    world.settle()
    assert task.done
    replay.sync(allow_expunge=False)
    assert replay.uids == [1, 2, 3]
    replay.sync(allow_expunge=True)
    assert replay.uids == [2, 3]


def test_answers_that_overlap_are_applied_once(world, memory, live):
    replay = Replay(live.open_view(lambda: None))
    refreshes = [Task(live.refresh())]
    changing = Task(live.change(lambda mailbox: mailbox.store_flags([3], FlagChange.ADD, ["work"])))
    refreshes.append(Task(live.refresh()))
    put(memory)
    memory.mailbox("INBOX").expunge([1], only_deleted=False)
    world.settle()
    assert changing.done
    assert all(task.done for task in refreshes)
    replay.sync(allow_expunge=True)
    replay.check_equal(memory.mailbox("INBOX"))


def test_a_poke_during_a_refresh_is_not_lost(world, memory, live):
    count, poke = pokes()
    live.open_view(poke)
    live.poked()
    task = Task(live.refresh())
    assert not live.stale
    operation, answer = world.runners[0].queue.popleft()

    def read_and_be_overtaken() -> object:
        read = operation()
        put(memory)
        live.poked()
        return read

    world.runners[0].queue.append((read_and_be_overtaken, answer))
    world.settle()
    assert task.done
    assert live.stale
    world.do(live.refresh())
    assert list(live.columns.uids) == [1, 2, 3, 4]
    assert len(count) >= 2


def test_catching_up_waits_for_a_refresh_that_is_on_its_way(world, memory, live):
    put(memory)
    live.poked()
    refreshing = Task(live.refresh())
    catching_up = Task(live.catch_up())
    assert not catching_up.done, "what was known before it began is not there yet"
    world.settle()
    assert refreshing.done
    catching_up.result()
    assert list(live.columns.uids) == [1, 2, 3, 4]
    assert not live.unsettled
    ran = world.runners[0].ran
    Task(live.catch_up()).result()
    assert world.runners[0].ran == ran


def test_catching_up_does_what_a_refresh_before_it_could_not(world, memory, live, monkeypatch):
    real, failures = MemoryMailbox.refresh, [StoreUnavailable()]

    def once(self, names=None, *, claims=False):
        if failures:
            raise failures.pop()
        return real(self, names, claims=claims)

    monkeypatch.setattr(MemoryMailbox, "refresh", once)
    put(memory)
    live.poked()
    refreshing = Task(live.refresh())
    live.poked(())
    catching_up = Task(live.catch_up())
    world.settle()
    with pytest.raises(StoreUnavailable):
        refreshing.result()
    catching_up.result()
    assert list(live.columns.uids) == [1, 2, 3, 4]


def test_a_refresh_that_fails_is_tried_again(world, live, monkeypatch):
    live.poked(["name"])
    with monkeypatch.context() as patch:
        patch.setattr(MemoryMailbox, "refresh", lambda _self, _names, **_: (_ for _ in ()).throw(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            world.do(live.refresh())
    assert live.stale
    looked = record_refreshes(monkeypatch)
    world.do(live.refresh())
    assert looked == [None], "which names were lost is not known: look at everything"
    assert not live.stale


def test_names_are_gathered_until_the_refresh(world, live, monkeypatch):
    looked = record_refreshes(monkeypatch)
    live.poked(["a"])
    live.poked(["b", "a"])
    world.do(live.refresh())
    live.poked(["c"])
    live.poked()
    live.poked(["d"])
    world.do(live.refresh())
    world.do(live.refresh())  # the periodic look, without a poke
    assert looked == [{"a", "b"}, None, None]


def test_what_the_store_itself_did_needs_no_look_at_the_files(world, memory, account, live, monkeypatch):
    looked = record_refreshes(monkeypatch)
    count, poke = pokes()
    live.open_view(poke)
    world.do(account.append("INBOX", [staged(memory, message())]))
    assert count
    assert not live.stale, "what was appended was read in the same turn"
    assert list(live.columns.uids) == [1, 2, 3, 4]
    account.poke(live.id, ())
    assert live.stale
    world.do(live.refresh())
    assert looked == []
    assert world.told == [(USER, live.id), (USER, live.id)]


def test_copy_and_move_reach_both_mailboxes(world, memory, account, live):
    memory.create("target")
    target = world.do(account.select("target"))
    copied = world.do(account.copy(live, [1], "target"))
    assert list(copied.source) == [1]
    assert target.stale
    moved = world.do(account.copy(live, [2], "target", move=True))
    assert list(live.columns.uids) == [1, 3]
    world.do(target.refresh())
    assert list(target.columns.uids) == [*copied.target, *moved.target]
    assert {mailbox for _user, mailbox in world.told} == {live.id, target.id}


def test_a_poke_for_a_mailbox_that_is_not_open_here(world, account):
    account.poked(b"x" * 16)
    assert world.accounts.all_open() == []
    assert not world.told


def test_what_is_open_is_found_by_its_id_for_as_long_as_a_session_has_it(world, memory, account, live):
    assert world.accounts.having_any([live.id]) == [live]
    assert world.accounts.all_open() == [live]
    second = world.do(account.select("INBOX"))
    account.release(live)
    assert world.accounts.having_any([second.id]) == [second]
    account.release(second)
    assert world.accounts.having_any([live.id]) == []
    assert world.accounts.all_open() == []
    assert world.do(account.select("INBOX")) is live, "it is kept all the same"
    assert world.accounts.having_any([live.id]) == [live]


def claim(world, live, view):
    """As a session does before it tells of new messages; which UIDs are \\Recent in it then."""
    world.do(live.claim_recent(view, range(view.last_uid + 1, live.columns.uids[-1] + 1)))
    view.sync(allow_expunge=True)
    return [uid for uid in view.uids[: view.count] if uid in view.recent_uids]


def opened(world, live, **options):
    """A session that has just selected the mailbox."""
    view = live.open_view(lambda: None, **options)
    world.do(live.claim_recent(view, range(1, view.last_uid + 1)))
    return view


def test_new_mail_is_recent_for_the_session_that_is_told_first(world, memory, live):
    """RFC 3501 2.3.2: "the first session to have been notified about this message"."""
    first, second = opened(world, live), opened(world, live)
    assert (first.recent(), second.recent()) == (3, 0)
    put(memory)
    world.do(live.refresh())
    assert memory.status("INBOX").recent == 1, "nobody has been told"
    assert claim(world, live, second) == [4]
    assert claim(world, live, first) == [1, 2, 3]
    assert memory.status("INBOX").recent == 0
    put(memory)
    world.do(live.change(lambda mailbox: mailbox.store_flags([1], FlagChange.ADD, ["\\Seen"])))
    assert claim(world, live, first) == [1, 2, 3, 5]
    assert claim(world, live, second) == [4]
    live.close_view(first)
    put(memory)
    world.do(live.refresh())
    assert memory.status("INBOX").recent == 1


def test_a_session_that_is_told_at_once_has_new_mail_claimed_as_it_comes(world, memory, live):
    first, second = opened(world, live), opened(world, live)
    put(memory)
    with live.listening(second):
        world.do(live.refresh())
    assert memory.status("INBOX").recent == 0
    hops = world.runners[0].ran
    assert claim(world, live, first) == [1, 2, 3, 4], "it is told first all the same"
    assert claim(world, live, second) == []
    assert world.runners[0].ran == hops


def test_what_nobody_was_told_of_is_recent_for_the_next(world, memory, live):
    view = opened(world, live)
    with live.listening(view):
        put(memory)
        world.do(live.refresh())
    live.close_view(view)
    assert claim(world, live, opened(world, live)) == [4]


def test_a_claim_that_fails_leaves_new_mail_recent(world, memory, live, monkeypatch):
    """RFC 3501 2.3.2: what cannot be determined "SHOULD be considered recent"; of sessions here only one has it."""
    first, second = opened(world, live), opened(world, live)
    put(memory)
    world.do(live.refresh())
    with monkeypatch.context() as patch:
        patch.setattr(MemoryMailbox, "claim_recent", lambda *_args: (_ for _ in ()).throw(NoSpace()))
        assert claim(world, live, first) == [1, 2, 3, 4]
        assert claim(world, live, second) == []
    assert memory.status("INBOX").recent == 1


def test_messages_that_come_during_a_claim_are_told_the_next_time(world, memory, live):
    view = opened(world, live)
    put(memory)
    world.do(live.refresh())
    world.do(live.claim_recent(view, range(4, 5)))
    put(memory)
    world.do(live.refresh())
    world.do(live.change(lambda mailbox: mailbox.store_flags([5], FlagChange.ADD, ["\\Seen"])))
    told = view.sync(allow_expunge=True, below=5)
    assert (told.exists, list(told.flags)) == (4, [])
    assert view.behind()
    assert claim(world, live, view) == [1, 2, 3, 4, 5]


def test_a_read_only_session_leaves_new_mail_recent(world, memory, live):
    """RFC 3501 6.3.2: EXAMINE."""
    view = live.open_view(lambda: None, read_only=True)
    live.show_recent(view, range(3, 4))
    put(memory)
    with live.listening(view):
        world.do(live.refresh())
    assert claim(world, live, view) == [3, 4]
    assert memory.status("INBOX").recent == 4
    other = live.open_view(lambda: None)
    assert claim(world, live, other) == [1, 2, 3, 4]
    put(memory)
    world.do(live.refresh())
    assert claim(world, live, other) == [1, 2, 3, 4, 5]
    assert claim(world, live, view) == [3, 4], "another one has been told first"
    put(memory)
    with live.listening(other):
        world.do(live.refresh())
    assert claim(world, live, view) == [3, 4, 6]
    assert claim(world, live, other) == [1, 2, 3, 4, 5, 6]


def test_expunges_are_forgotten_once_every_view_has_told_them(world, live):
    views = [live.open_view(lambda: None) for _ in range(2)]
    world.do(live.change(lambda mailbox: mailbox.expunge([1], only_deleted=False)))
    views[0].sync(allow_expunge=True)
    world.do(live.change(lambda mailbox: mailbox.expunge([2], only_deleted=False)))
    assert list(live.columns.expunged) == [1, 2]
    live.close_view(views[1])
    assert list(live.columns.expunged) == [2]
    assert list(views[0].sync(allow_expunge=True).expunged) == [(1, 2)]
    live.close_view(views[0])
    assert not live.columns.expunged


def test_a_view_that_is_closed_is_poked_no_more(world, live):
    count, poke = pokes()
    view = live.open_view(poke)
    live.close_view(view)
    live.close_view(view)
    live.poked()
    assert not count


def test_nothing_new_costs_no_hop(world, live):
    view = live.open_view(lambda: None)
    ran = world.runners[0].ran
    assert not live.stale
    assert not view.behind()
    assert not view.sync(allow_expunge=True)
    assert world.runners[0].ran == ran


def test_a_poke_with_names_that_we_changed_ourselves_is_no_news(world, live, monkeypatch):
    told = []
    live.open_view(lambda: told.append(1))
    monkeypatch.setattr(live.mailbox, "foreign_names", lambda names: [name for name in names if name != "own"])
    live.poked(["own"])
    assert not live.stale
    assert not told
    live.poked(["own", "other"])
    assert live.stale
    assert told


def test_what_is_appended_for_a_session_that_listens_needs_no_second_claim(world, memory, account, live, monkeypatch):
    claims = []
    claim_recent = MemoryMailbox.claim_recent
    monkeypatch.setattr(
        MemoryMailbox, "claim_recent", lambda mailbox, *below: claims.append(1) or claim_recent(mailbox, *below)
    )
    reader = live.open_view(lambda: None, read_only=True)
    with live.listening(reader):
        world.do(account.append("INBOX", [staged(memory, message())]))
    assert claims == [], "a session that only looks takes nothing"
    view = opened(world, live)
    world.do(account.append("INBOX", [staged(memory, message())]))
    assert len(claims) == 1, "nor does one that is not told now"
    assert claim(world, live, view) == [1, 2, 3, 4, 5]
    del claims[:]
    with live.listening(view):
        world.do(account.append("INBOX", [staged(memory, message())]))
    assert len(claims) == 1
    assert claim(world, live, view) == [1, 2, 3, 4, 5, 6]
    assert len(claims) == 1


def test_deliveries_that_wait_at_the_same_time_are_done_together(world, memory, account, monkeypatch):
    groups = []
    deliver = MemoryAccount.deliver

    def count(self, deliveries, *rest):
        groups.append([delivery.name for delivery in deliveries])
        return deliver(self, deliveries, *rest)

    monkeypatch.setattr(MemoryAccount, "deliver", count)
    tasks = [
        Task(account.deliver(lambda store, name=name: Delivery(name, [staged(store, message(name))])))
        for name in ("INBOX", "nowhere", "INBOX")
    ]

    def spoil(_store):
        raise StoreUnavailable

    tasks.insert(1, Task(account.deliver(spoil)))
    world.runners[0].step()
    assert groups == [["INBOX", "nowhere", "INBOX"]]
    assert [task.done for task in tasks] == [True, False, False, False], "each is answered in its turn"
    late = Task(account.append("INBOX", [staged(memory, message("late"))]))
    world.settle()
    assert groups[1:] == [["INBOX"]]
    assert [type(task.error) for task in (*tasks, late)] == [
        type(None), StoreUnavailable, NoSuchMailbox, type(None), type(None)
    ]  # fmt: skip
    uids = [task.value.uids for task in (tasks[0], tasks[3], late) if task.value]
    assert len({uid for [uid] in uids}) == 3
