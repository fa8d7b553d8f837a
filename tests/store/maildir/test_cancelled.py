"""Changes of many messages that are given up in the middle: what is done is told, or nothing is done; a search ends."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from mailserver import cancellation
from mailserver.cancellation import Cancellation
from mailserver.errors import Cancelled
from mailserver.store.interfaces import Account
from mailserver.store.maildir.disk import bulk, safeio
from mailserver.store.maildir.mailbox import expunge, flag_rename
from mailserver.store.maildir.mailbox import mailbox as maildir_mailbox
from mailserver.store.memory_budget import MemoryBudget
from mailserver.store.query import Body
from mailserver.types import ModSeq
from tests.store.disk import USER, open_store, scratch
from tests.store.samples import ADD, flags, message, put, uids

COUNT = 10


@pytest.fixture
def account() -> Account:
    with scratch() as root:
        account = open_store(root).account(USER)
        account.create("Other")
        for number in range(COUNT):
            put(account, data=message(f"m{number}"), flags=["\\Deleted"] if number % 2 else [])
        yield account
        account.close()


def cut(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, after: int, operation: Callable[[], object]
) -> None:
    """Run it in a thread's way; its session ends once that function has been called that often on messages."""
    request = Cancellation()
    original = getattr(module, name)
    calls = 0

    def counted(first: str, *rest: Any, **options: Any) -> object:
        nonlocal calls
        done = original(first, *rest, **options)
        calls += "/cur/" in f"{first}/" or "/new/" in f"{first}/"
        if calls == after:
            request.request()
        return done

    with monkeypatch.context() as patch:
        patch.setattr(module, name, counted)
        patch.setattr(cancellation, "CHANGE_TIME", 0.0)
        with pytest.raises(Cancelled):
            cancellation.run(operation, request)


def test_store_tells_what_it_has_done(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = account.mailbox("INBOX")
    before = inbox.status().highest_modseq
    monkeypatch.setattr(flag_rename, "_AT_ONCE", 2)
    cut(monkeypatch, bulk, "rename_all", 2, lambda: inbox.store_flags(uids(inbox), ADD, ["\\Seen"]))
    seen = [uid for uid, names in flags(inbox).items() if "\\Seen" in names]
    assert len(seen) == 4
    assert [row.uid for row in inbox.changes_since(before).rows] == seen
    settled = inbox.status().highest_modseq
    inbox.refresh()
    assert inbox.status().highest_modseq == settled, "the disk has nothing that the index has not been told"
    inbox.store_flags(uids(inbox), ADD, ["\\Seen"])
    assert all("\\Seen" in names for names in flags(inbox).values())


def test_expunge_tells_what_it_has_done(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = account.mailbox("INBOX")
    before = inbox.status().highest_modseq
    monkeypatch.setattr(expunge, "_AT_ONCE", 1)
    cut(monkeypatch, bulk, "unlink_all", 2, lambda: inbox.expunge(uids(inbox)))
    assert len(uids(inbox)) == COUNT - 2
    assert len(inbox.changes_since(ModSeq(before)).expunged) == 2
    inbox.refresh()
    assert len(uids(inbox)) == COUNT - 2
    assert len(inbox.expunge(uids(inbox))) == COUNT // 2 - 2


@pytest.mark.parametrize(("move", "step"), [(False, "link"), (True, "rename")])
def test_copy_and_move_are_undone(account: Account, monkeypatch: pytest.MonkeyPatch, move: bool, step: str) -> None:
    inbox, other = account.mailbox("INBOX"), account.mailbox("Other")
    everything = uids(inbox)
    cut(monkeypatch, safeio, step, 3, lambda: (inbox.move if move else inbox.copy)(everything, "Other"))
    for mailbox, there in ((inbox, everything), (other, [])):
        mailbox.refresh()
        assert uids(mailbox) == there
    done = (inbox.move if move else inbox.copy)(everything, "Other")
    assert len(done.target) == COUNT
    assert len(uids(other)) == COUNT


def test_a_search_ends_at_its_next_step_and_gives_back_what_it_holds(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryBudget(1)
    monkeypatch.setattr(maildir_mailbox, "SEARCHED", memory)
    monkeypatch.setattr("mailserver.store.search.STEP", 0.0)
    large = put(account, data=message(body="lorem ipsum " * 200_000))
    inbox = account.mailbox("INBOX")
    inbox.refresh()
    first, second = (inbox.start_search(Body("ipsum lorem"), [large]) for _ in range(2))
    while not memory.held:
        assert first.step() is None
    for _ in range(3):
        assert second.step() is None
    assert second.pause > 0, "it waits for the memory that the first one holds"
    request = Cancellation()
    request.request()
    with pytest.raises(Cancelled):
        cancellation.run(first.step, request)
    first.close()
    assert memory.held == 0
    while (found := second.step()) is None:
        assert not second.pause
    assert found == [large]
    second.close()
    assert memory.held == 0


def test_a_change_that_takes_no_time_is_done_though_the_client_has_gone(account: Account) -> None:
    request = Cancellation()
    request.request()
    inbox = account.mailbox("INBOX")
    cancellation.run(lambda: inbox.store_flags(uids(inbox), ADD, ["\\Seen"]), request)
    assert all("\\Seen" in names for names in flags(inbox).values())
    assert len(cancellation.run(lambda: inbox.copy(uids(inbox), "Other"), request).target) == COUNT
    assert len(cancellation.run(lambda: inbox.expunge(uids(inbox)), request)) == COUNT // 2


def test_what_is_done_for_several_sessions_is_not_given_up() -> None:
    request = Cancellation()
    request.request()

    def work() -> None:
        with cancellation.shielded():
            cancellation.check()
        cancellation.check()

    with pytest.raises(Cancelled):
        cancellation.run(work, request)
    cancellation.check()
