"""The pool, with children that the test plays, and with real ones."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mailserver.errors import InUse, NoSuchMailbox, StoreUnavailable
from mailserver.message.render import summarise
from mailserver.store.interfaces import Progress, ScanTooLarge
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.home.settings import Settings
from mailserver.store.maildir.sync.scan_process import carry_out
from mailserver.store.scan_pool import IDLE, ScanPool
from tests.auth.waiting import FakeChild, RealChild, Spawn, Task, Timers, Waiting

ORDER = {"root": "/nowhere", "mailbox": "INBOX"}


class Bench:
    def __init__(self, kind: Any = FakeChild, **settings: Any) -> None:
        self.timers = Timers()
        self.spawn = Spawn(kind)
        self.pool = ScanPool(self.spawn, Waiting, self.timers.call_later, **settings)

    def ask(self, progress: Progress | None = None, **order: Any) -> Task:
        return Task(self.pool.read({**ORDER, **order}, progress))

    @property
    def child(self) -> Any:
        return self.spawn.children[-1]

    def say(self, answer: object) -> None:
        self.child.events.received(json.dumps(answer).encode() + b"\n")


def test_an_order_goes_to_a_child_and_progress_comes_back() -> None:
    bench = Bench()
    progress = Progress()
    task = bench.ask(progress)
    assert json.loads(bench.child.written[0]) == ORDER
    assert bench.pool.orders == 1
    bench.say([10, 40])
    assert (progress.done, progress.goal) == (10, 40)
    assert not task.done
    bench.say("done")
    assert task.outcome() is True
    assert bench.pool.orders == 0


def test_answers_come_in_any_pieces() -> None:
    bench = Bench()
    progress = Progress()
    task = bench.ask(progress)
    for byte in b'[1, 2]\n[3, 4]\n"elsewhere"\n':
        bench.child.events.received(bytes([byte]))
    assert (progress.done, progress.goal) == (3, 4)
    assert task.outcome() is False


def test_sessions_that_want_the_same_share_it() -> None:
    bench = Bench()
    first, late = Progress(), Progress()
    tasks = [bench.ask(first)]
    bench.say([3, 9])
    tasks.append(bench.ask(late))
    assert (late.done, late.goal) == (3, 9)
    bench.say("done")
    assert [task.outcome() for task in tasks] == [True, True]
    assert len(bench.child.written) == 1


def test_others_wait_in_line_and_no_more_children_are_started() -> None:
    bench = Bench(processes=1)
    first, second = bench.ask(), bench.ask(mailbox="Other")
    assert len(bench.spawn.children) == 1
    assert len(bench.child.written) == 1
    bench.say("done")
    assert first.done
    assert not second.done
    assert json.loads(bench.child.written[1])["mailbox"] == "Other"
    bench.say("done")
    assert second.outcome() is True


def test_a_client_that_goes_does_not_stop_it() -> None:
    bench = Bench()
    gone, stays = bench.ask(), bench.ask()
    gone.cancel()
    assert not bench.child.killed
    bench.say("done")
    assert stays.outcome() is True


def test_a_bored_child_is_ended_and_the_next_order_starts_another() -> None:
    bench = Bench()
    bench.ask()
    bench.say("done")
    bench.timers.advance(IDLE - 1)
    bench.ask()
    bench.timers.advance(IDLE)
    assert not bench.child.killed, "it has work"
    bench.say("done")
    bench.timers.advance(IDLE)
    old = bench.child
    assert old.killed
    task = bench.ask()
    if len(bench.spawn.children) == 1:
        old.die()
    assert bench.child is not old
    bench.say("done")
    assert task.outcome() is True


@pytest.mark.parametrize(
    ("name", "error"), [("InUse", InUse), ("NoSuchMailbox", NoSuchMailbox), ("BadSyntax", StoreUnavailable)]
)
def test_errors_are_told(name: str, error: type[Exception]) -> None:
    bench = Bench()
    task = bench.ask()
    bench.say({"error": name})
    with pytest.raises(error):
        task.outcome()


def test_a_child_that_dies_is_replaced_once() -> None:
    bench = Bench()
    task = bench.ask()
    bench.child.die()
    assert len(bench.spawn.children) == 2
    assert not task.done
    bench.child.die()
    with pytest.raises(StoreUnavailable):
        task.outcome()
    assert len(bench.spawn.children) == 2
    again = bench.ask()
    bench.say("done")
    assert again.outcome() is True


def test_one_that_talks_nonsense_is_replaced() -> None:
    bench = Bench()
    task = bench.ask()
    bench.say({"what": 1})
    assert bench.child.killed
    bench.child.die()
    bench.say("done")
    assert task.outcome() is True
    other = bench.ask(mailbox="Other")
    bench.child.events.received(b"x" * 5000)
    assert bench.child.killed
    bench.child.die()
    bench.say("done")
    assert other.outcome() is True


def test_where_none_can_be_started_it_is_done_where_it_was_asked_for() -> None:
    bench = Bench()
    bench.spawn.error = OSError("no more processes")
    assert bench.ask().outcome() is False


def test_stop_waits_for_nothing() -> None:
    bench = Bench(processes=1)
    tasks = [bench.ask(), bench.ask(mailbox="Other")]
    bench.pool.stop()
    for task in tasks:
        with pytest.raises(StoreUnavailable):
            task.outcome()
    assert bench.child.killed
    bench.child.die()
    assert len(bench.spawn.children) == 1
    assert bench.timers.pending == []
    bench.pool.stop()
    with pytest.raises(StoreUnavailable):
        bench.ask().outcome()


# --- real ones

FILES = 60


@pytest.fixture
def account(tmp_path) -> MaildirAccount:
    root = tmp_path / "Maildir"
    for part in ("cur", "new", "tmp"):
        (root / part).mkdir(parents=True)
    for number in range(FILES):
        (root / f"cur/{1_600_000_000 + number}.M{number}P1.host:2,S").write_bytes(b"Subject: x\n\n")
    for part in ("cur", "new"):
        os.utime(root / part, (10**9, 10**9))
    return MaildirAccount("anna@example.test", str(root), Settings(summarise, "host.example.test", str(root), many=10))


def order_of(account: MaildirAccount) -> dict[str, Any]:
    with account.bounded(), pytest.raises(ScanTooLarge) as much:
        account.mailbox("INBOX").refresh()
    return dict(much.value.order)


@pytest.fixture
def real() -> Iterator[Bench]:
    bench = Bench(RealChild, at_once=7)
    yield bench
    bench.pool.stop()
    for child in bench.spawn.children:
        child.close()


def finish(bench: Bench, task: Task) -> Any:
    deadline = time.monotonic() + 60
    while not task.done:
        assert time.monotonic() < deadline
        bench.child.pump()
    return task.outcome()


def uids(account: MaildirAccount) -> list[int]:
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    return list(mailbox.load().uids)


def test_a_real_one_reads_the_mailbox(account, real) -> None:
    progress = Progress()
    assert finish(real, real.ask(progress, **order_of(account))) is True
    assert (progress.done, progress.goal) == (FILES, FILES)
    with account.bounded():
        assert uids(account) == list(range(1, FILES + 1))
    # The same child takes the next order.
    assert finish(real, real.ask(**{**order_of_other(account), "mailbox": "INBOX"})) is True
    assert len(real.spawn.children) == 1


def order_of_other(account: MaildirAccount) -> dict[str, Any]:
    return dict(account._home.scan_too_large("INBOX").order)


def test_a_real_one_that_is_killed_is_replaced_and_goes_on(account, real) -> None:
    progress = Progress()
    task = real.ask(progress, **order_of(account))
    while progress.done < 14:
        real.child.pump()
    os.kill(real.child.pid, signal.SIGKILL)
    assert finish(real, task) is True
    assert len(real.spawn.children) == 2
    assert uids(account) == list(range(1, FILES + 1))


def test_its_end_is_the_end_of_input(account, real) -> None:
    """Also while it waits: a server that was killed leaves nobody behind."""
    order = order_of(account)
    new = os.open(os.path.join(account.root, "new"), os.O_RDONLY)
    try:
        fcntl.flock(new, fcntl.LOCK_EX)
        real.ask(**order)
        time.sleep(0.5)
        child = real.child
        assert child._process.poll() is None
        child._process.stdin.close()
        assert child._process.wait(20) == 0
    finally:
        os.close(new)
    assert uids(account) == list(range(1, FILES + 1))


def test_it_stops_after_the_slice_when_nobody_waits(account) -> None:
    told: list[Any] = []
    assert carry_out(order_of(account), told.append, abandoned=lambda: len(told) == 3, at_once=7) is None
    assert told == [(0, FILES), (7, FILES), (14, FILES)]
    assert uids(account) == list(range(1, FILES + 1))


def test_a_server_that_is_killed_meanwhile_is_no_bug_of_the_one_that_reads(account, capsys) -> None:
    told: list[Any] = []

    def tell(progress: Any) -> None:
        told.append(progress)
        if len(told) == 3:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        carry_out(order_of(account), tell, at_once=7)
    assert capsys.readouterr().err == ""
    assert carry_out(order_of(account), told.append, at_once=7) == "done"
    # Where the one stopped, the other goes on.
    assert told[2] == (14, FILES)
    assert told[3] == told[2]
    assert uids(account) == list(range(1, FILES + 1))


def test_what_is_wrong_is_told_by_name(account) -> None:
    order = order_of(account)
    assert carry_out({**order, "mailbox": "Nowhere"}, print) == {"error": "NoSuchMailbox"}
    assert carry_out({**order, "mailbox": "a/../b"}, print) in ({"error": "BadMailboxName"}, {"error": "NoSuchMailbox"})


def test_an_index_in_memory_is_of_no_use_to_others(account, monkeypatch) -> None:
    from mailserver.store.maildir.home.home import Home

    order = order_of(account)
    monkeypatch.setattr(Home, "_open", lambda _home: None)
    assert carry_out(order, lambda _reported: None) == "elsewhere"


def test_a_bug_is_told_whole_and_leaves_it_to_the_server(account, monkeypatch, capsys) -> None:
    order = order_of(account)
    monkeypatch.setattr("mailserver.store.maildir.sync.scan_process.read_in_batches", None)
    assert carry_out(order, print) == "elsewhere"
    assert "TypeError" in capsys.readouterr().err
