"""The live picture of accounts: what happens while an operation is on its way to the account's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

import pytest
from attrs import evolve

from mailserver.errors import LimitReached, MailboxChanged, NoSuchMailbox, StoreUnavailable
from mailserver.store.interfaces import Delivery, FlagChange
from mailserver.store.live import LEAST_MESSAGES, LiveAccount, LiveAccounts, LiveMailbox, Usage
from mailserver.store.memory import MemoryAccount, MemoryMailbox, MemoryStore
from mailserver.types import UID
from tests.store.replay import Replay
from tests.store.samples import message, put, staged

T = TypeVar("T")
USER = "anna@example.test"


class Answer(Generic[T]):
    """What a runner gives: done once the operation has been stepped."""

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiter: Task[Any] | None = None

    def __await__(self) -> Generator[Answer[T], None, T]:
        if not self.done:
            yield self
        if self.error:
            raise self.error
        return self.value


class Runner:
    """First in, first out; the test decides when the next operation runs."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Callable[[], Any], Answer[Any]]] = deque()
        self.ran = 0

    def run(self, operation: Callable[[], T]) -> Awaitable[T]:
        answer: Answer[T] = Answer()
        self.queue.append((operation, answer))
        return answer

    def step(self) -> None:
        operation, answer = self.queue.popleft()
        self.ran += 1
        try:
            answer.value = operation()
        except Exception as error:
            answer.error = error
        answer.done = True
        if answer.waiter:
            answer.waiter.go()


class Task(Generic[T]):
    """A session's coroutine, run as far as it goes."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.coroutine = coroutine
        self.done = False
        self.value: T | None = None
        self.error: BaseException | None = None
        self.go()

    def go(self) -> None:
        try:
            self.coroutine.send(None).waiter = self
        except StopIteration as stop:
            self.done, self.value = True, stop.value
        except Exception as error:
            self.done, self.error = True, error

    def result(self) -> T:
        assert self.done, "still waiting"
        if self.error:
            raise self.error
        return self.value  # type: ignore[return-value]


class World:
    """A worker: its accounts, and every runner it made."""

    def __init__(self, **bounds: Any) -> None:
        self.store = MemoryStore(lambda _source: pytest.fail("no summary is needed here"))
        self.runners: list[Runner] = []
        self.told: list[tuple[str, bytes]] = []
        self.watched: list[LiveMailbox] = []
        self.left: list[LiveMailbox] = []
        self.accounts = LiveAccounts(
            self.store,
            self.make_runner,
            tell_others=lambda user, mailbox: self.told.append((user, mailbox)),
            watch=self.watch,
            leave=self.left.append,
            unwatch=self.watched.remove,
            **bounds,
        )

    def watch(self, live: LiveMailbox) -> None:
        if live not in self.watched:
            self.watched.append(live)

    def make_runner(self) -> Runner:
        self.runners.append(Runner())
        return self.runners[-1]

    def settle(self) -> None:
        while any(runner.queue for runner in self.runners):
            for runner in self.runners:
                if runner.queue:
                    runner.step()

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = Task(coroutine)
        self.settle()
        return task.result()

    def account(self) -> LiveAccount:
        return self.do(self.accounts.open(USER))


@pytest.fixture
def world():
    return World()


@pytest.fixture
def memory(world) -> MemoryAccount:
    """The blocking side, as another process would use it."""
    return world.store.account(USER)


@pytest.fixture
def account(world):
    return world.account()


@pytest.fixture
def live(world, memory, account):
    """INBOX with three messages, selected."""
    memory.append("INBOX", [staged(memory, message(str(n))) for n in range(3)])
    return world.do(account.select("INBOX"))


def pokes() -> tuple[list[int], Callable[[], None]]:
    count: list[int] = []
    return count, lambda: count.append(1)


# --- accounts


def test_two_that_open_one_user_at_once_share_one_runner(world):
    first, second = Task(world.accounts.open(USER)), Task(world.accounts.open(USER))
    assert len(world.runners) == 1
    world.settle()
    assert first.result() is second.result()
    assert first.result().users == 2
    assert first.result().account is world.store.account(USER)


def test_an_account_that_is_open_costs_no_hop(world, account):
    ran = world.runners[0].ran
    assert Task(world.accounts.open(USER)).result() is account
    assert world.runners[0].ran == ran


def test_an_account_that_cannot_be_opened_leaves_nothing(world, monkeypatch):
    tries = []

    def fail(_user: str, _home: str | None) -> MemoryAccount:
        tries.append(1)
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "account", fail)
        first, second = Task(world.accounts.open(USER)), Task(world.accounts.open(USER))
        world.settle()
        for task in (first, second):
            with pytest.raises(StoreUnavailable):
                task.result()
        assert len(tries) == 2
        assert world.accounts.get(USER) is None
    assert world.account().users == 1


def test_an_account_that_one_cannot_open_and_the_next_can(world, monkeypatch):
    real, answers = world.store.account, [StoreUnavailable()]

    def once(user: str, home: str | None) -> MemoryAccount:
        if answers:
            raise answers.pop()
        return real(user, home)

    monkeypatch.setattr(world.store, "account", once)
    first, second = Task(world.accounts.open(USER)), Task(world.accounts.open(USER))
    world.settle()
    with pytest.raises(StoreUnavailable):
        first.result()
    assert second.result().users == 1
    assert world.accounts.get(USER) is second.result()


def test_unused_accounts_are_closed_oldest_first(monkeypatch):
    world = World(max_unused_accounts=1)
    closed = []
    monkeypatch.setattr(MemoryAccount, "close", lambda self: closed.append(self.user))
    opened = [world.do(world.accounts.open(f"u{n}@example.test")) for n in range(3)]
    for live in opened[:2]:
        world.accounts.release(live)
        world.settle()
    assert closed == ["u0@example.test"]
    assert world.accounts.get("u0@example.test") is None
    assert world.accounts.get("u2@example.test") is opened[2]
    # It opens again, on a runner of its own.
    assert world.do(world.accounts.open("u0@example.test")) is not opened[0]


# --- selecting


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
        views.append(other.open_view(UID(1), lambda: None))
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
    world = World(max_indexes=2)
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
    world.accounts.max_indexes = 1
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


# --- changes and pokes


def test_a_change_is_in_the_columns_when_it_returns_and_others_are_poked(world, live):
    count, poke = pokes()
    view = live.open_view(1, poke)
    world.do(live.change(lambda mailbox: mailbox.expunge([2], only_deleted=False)))
    assert list(live.columns.uids) == [1, 3]
    assert count
    assert list(view.sync(allow_expunge=True).expunged) == [(2, 2)]
    assert world.told == [(USER, live.id)]
    live.close_view(view)


def test_a_silent_change_does_not_hide_what_another_process_did(world, memory, live):
    replay = Replay(live.open_view(1, lambda: None))
    memory.mailbox("INBOX").store_flags([1], FlagChange.ADD, ["\\Flagged"])
    world.do(live.change(lambda mailbox: mailbox.store_flags([1, 2], FlagChange.ADD, ["\\Seen"])))
    replay.stored_silently([1, 2], "\\Seen")
    replay.sync(allow_expunge=True)
    replay.check_equal(memory.mailbox("INBOX"))


def test_a_silent_change_does_not_hide_what_came_between_reading_and_changing(world, memory, live):
    replay = Replay(live.open_view(1, lambda: None))

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
    live.open_view(1, poke)

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
    replay = Replay(live.open_view(1, lambda: None))
    assert replay.uids == [1, 2, 3]
    world.settle()
    assert task.done
    replay.sync(allow_expunge=False)
    assert replay.uids == [1, 2, 3]
    replay.sync(allow_expunge=True)
    assert replay.uids == [2, 3]


def test_answers_that_overlap_are_applied_once(world, memory, live):
    replay = Replay(live.open_view(1, lambda: None))
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
    live.open_view(1, poke)
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

    def once(self, names=None):
        if failures:
            raise failures.pop()
        real(self, names)

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
        patch.setattr(MemoryMailbox, "refresh", lambda _self, _names: (_ for _ in ()).throw(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            world.do(live.refresh())
    assert live.stale
    looked = record_refreshes(monkeypatch)
    world.do(live.refresh())
    assert looked == [None], "which names were lost is not known: look at everything"
    assert not live.stale


def record_refreshes(monkeypatch) -> list[set[str] | None]:
    looked: list[set[str] | None] = []
    monkeypatch.setattr(
        MemoryMailbox, "refresh", lambda _self, names=None: looked.append(None if names is None else set(names))
    )
    return looked


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
    live.open_view(1, poke)
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


def test_a_poke_for_a_mailbox_that_is_not_open_here(account):
    account.poked(b"x" * 16)


def test_what_is_open_is_found_by_its_id_for_as_long_as_a_session_has_it(world, memory, account, live):
    assert world.accounts.having(live.id) == (live,)
    assert world.accounts.all_open() == [live]
    second = world.do(account.select("INBOX"))
    account.release(live)
    assert world.accounts.having(second.id) == (second,)
    account.release(second)
    assert world.accounts.having(live.id) == ()
    assert world.accounts.all_open() == []
    assert world.do(account.select("INBOX")) is live, "it is kept all the same"
    assert world.accounts.having(live.id) == (live,)


def test_new_mail_told_to_a_session_is_recent_for_no_later_one(world, memory, account, live):
    """RFC 3501 2.3.2: this session is the first to have been notified about it."""
    view = live.open_view(world.do(live.run(lambda mailbox: mailbox.claim_recent())), lambda: None)
    assert view.recent() == 3
    put(memory)
    live.poked()
    world.do(live.refresh())
    assert view.sync(allow_expunge=True).recent == 4
    assert memory.status("INBOX").recent == 0
    put(memory)
    world.do(live.change(lambda mailbox: mailbox.store_flags([1], FlagChange.ADD, ["\\Seen"])))
    assert view.sync(allow_expunge=True).recent == 5
    assert memory.status("INBOX").recent == 0
    live.close_view(view)
    put(memory)
    world.do(live.refresh())
    assert memory.status("INBOX").recent == 1


def test_a_read_only_session_leaves_new_mail_recent(world, memory, live):
    """RFC 3501 6.3.2: EXAMINE."""
    world.do(live.run(lambda mailbox: mailbox.claim_recent()))
    view = live.open_view(live.columns.uid_next, lambda: None, read_only=True)
    put(memory)
    world.do(live.refresh())
    assert view.sync(allow_expunge=True).recent == 1
    assert memory.status("INBOX").recent == 1


# --- selected again, and STATUS asked again, while nobody has changed anything


class Marked:
    """Stands for a mark; the test says what the disk looks like."""

    def __init__(self, name: str, *, settled: bool = True) -> None:
        self.name = name
        self.settled = settled
        self.same = True

    def unchanged(self, name: str) -> bool:
        return self.same and name == self.name


@pytest.fixture
def mark(monkeypatch) -> Marked:
    """Of all that is read of INBOX."""
    mark = Marked("INBOX")
    for method in ("load", "changes_since", "status"):
        real = getattr(MemoryMailbox, method)
        monkeypatch.setattr(
            MemoryMailbox, method, lambda self, *given, real=real: evolve(real(self, *given), mark=mark)
        )
    return mark


def hops(world: World) -> int:
    return sum(runner.ran for runner in world.runners)


def test_a_mailbox_that_nobody_changed_is_selected_without_a_hop(world, mark, account, live):
    ran = hops(world)
    assert Task(account.select("INBOX")).result() is live
    assert live.users == 2
    account.release(live)
    account.release(live)
    assert account.select_at_once("INBOX") is live
    assert live.users == 1
    assert hops(world) == ran


def test_what_a_change_left_is_selected_without_a_hop(world, mark, account, live):
    world.do(live.change(lambda mailbox: mailbox.expunge([1], only_deleted=False)))
    ran = hops(world)
    assert list(Task(account.select("INBOX")).result().columns.uids) == [2, 3]
    assert hops(world) == ran


def test_a_mailbox_that_changed_is_read_before_the_answer(world, mark, memory, account, live):
    put(memory)
    mark.same = False
    task = Task(account.select("INBOX"))
    assert not task.done
    world.settle()
    assert list(task.result().columns.uids) == [1, 2, 3, 4]


@pytest.mark.parametrize("doubt", ["not settled", "poked", "being read", "dropped", "another name"])
def test_a_mailbox_in_doubt_is_not_answered_at_once(world, mark, account, live, doubt):
    name = "INBOX"
    if doubt == "not settled":
        mark.settled = False
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


def test_selecting_takes_up_what_was_poked_before(world, mark, memory, account, live):
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


def test_selecting_that_fails_leaves_the_poke(world, mark, account, live, monkeypatch):
    live.poked(["name"])
    with monkeypatch.context() as patch:
        patch.setattr(MemoryMailbox, "refresh", lambda _self: (_ for _ in ()).throw(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            world.do(account.select("INBOX"))
    assert live.stale
    looked = record_refreshes(monkeypatch)
    world.do(live.refresh())
    assert looked == [None]


def test_status_asked_again_costs_no_hop(world, mark, memory, account):
    put(memory)
    first = world.do(account.status("INBOX"))
    ran = hops(world)
    assert Task(account.status("INBOX")).result() is first
    assert hops(world) == ran
    put(memory)
    mark.same = False
    assert world.do(account.status("INBOX")).messages == first.messages + 1


def test_status_in_doubt_is_asked_of_the_store(world, mark, memory, account):
    mark.settled = False
    assert world.do(account.status("INBOX")).messages == 0
    put(memory)
    assert world.do(account.status("INBOX")).messages == 1


# --- deleted or made anew


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
    old.open_view(1, poke)
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


# --- what is kept, and what a NOOP costs


def test_expunges_are_forgotten_once_every_view_has_told_them(world, live):
    views = [live.open_view(1, lambda: None) for _ in range(2)]
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
    view = live.open_view(1, poke)
    live.close_view(view)
    live.close_view(view)
    live.poked()
    assert not count


def test_nothing_new_costs_no_hop(world, live):
    view = live.open_view(1, lambda: None)
    ran = world.runners[0].ran
    assert not live.stale
    assert not view.behind()
    assert not view.sync(allow_expunge=True)
    assert world.runners[0].ran == ran


def test_a_poke_with_names_that_we_changed_ourselves_is_no_news(world, live, monkeypatch):
    told = []
    live.open_view(live.columns.uid_next, lambda: told.append(1))
    monkeypatch.setattr(live.mailbox, "foreign_names", lambda names: [name for name in names if name != "own"])
    live.poked(["own"])
    assert not live.stale
    assert not told
    live.poked(["own", "other"])
    assert live.stale
    assert told


def test_what_was_appended_for_a_session_needs_no_second_claim(world, memory, account, live, monkeypatch):
    claims = []
    claim = MemoryMailbox.claim_recent
    monkeypatch.setattr(MemoryMailbox, "claim_recent", lambda mailbox: claims.append(1) or claim(mailbox))
    _count, poke = pokes()
    reader = live.open_view(1, poke, read_only=True)
    world.do(account.append("INBOX", [staged(memory, message())]))
    assert claims == [], "a session that only looks takes nothing"
    assert live.claimed_end <= live.columns.uids[-1]
    live.close_view(reader)
    live.open_view(1, poke)
    world.do(account.append("INBOX", [staged(memory, message())]))
    assert len(claims) == 1
    assert live.claimed_end == live.columns.uids[-1] + 1


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
