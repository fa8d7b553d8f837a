"""Two account objects on one Maildir, as two workers have them: what one does costs the other little.

To the watcher of each, the other's renames are those of a foreign program.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from mailserver.errors import StoreUnavailable
from mailserver.store.flags import SEEN
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.lock import AccountLock
from mailserver.store.maildir.mailbox import mailbox as mailbox_module
from mailserver.store.maildir.sync import scan
from tests.store.disk import USER, open_store
from tests.store.samples import ADD, message, put, staged, uids


class Costs:
    """What is counted."""

    def __init__(self) -> None:
        self.locks = 0
        self.comparisons = 0
        self.directories = 0


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Costs:
    counted = Costs()
    enter, compare, read = AccountLock.__enter__, mailbox_module.reconcile, scan.read_directory

    def count_lock(lock: AccountLock) -> AccountLock:
        counted.locks += 1
        return enter(lock)

    def count_comparison(*arguments: Any) -> Any:
        counted.comparisons += 1
        return compare(*arguments)

    def count_directory(path: str, most: int | None = None) -> Any:
        counted.directories += 1
        return read(path, most)

    monkeypatch.setattr(AccountLock, "__enter__", count_lock)
    monkeypatch.setattr(mailbox_module, "reconcile", count_comparison)
    monkeypatch.setattr(scan, "read_directory", count_directory)
    return counted


@pytest.fixture
def accounts(tmp_path: Any) -> Iterator[tuple[Any, Any]]:
    one, other = (open_store(str(tmp_path / "mail")).account(USER) for _ in range(2))
    put(one)
    other.mailbox("INBOX").refresh()
    yield one, other
    one.close()
    other.close()


def names(account: Any) -> set[str]:
    return {name for place in ("new", "cur") for name in os.listdir(os.path.join(account.root, place))}


def test_the_names_of_what_another_worker_did_take_no_lock(accounts: tuple[Any, Any], costs: Costs) -> None:
    one, other = accounts
    inbox, seen_by_other = one.mailbox("INBOX"), other.mailbox("INBOX")
    before = names(one)
    put(one)
    after_append = names(one)
    inbox.store_flags(uids(inbox), ADD, ["\\Seen"])
    after_store = names(one)
    inbox.expunge(uids(inbox)[:1], only_deleted=False)
    vars(costs).update(locks=0, comparisons=0, directories=0)
    # As inotify tells them: each name that came or went.
    for told in (after_append - before, after_append ^ after_store, after_store ^ names(one)):
        assert told
        seen_by_other.refresh(told)
    assert vars(costs) == {"locks": 0, "comparisons": 0, "directories": 0}
    assert [row.flags for row in seen_by_other.load().rows] == [SEEN]


def test_foreign_names_among_them_are_taken_up(accounts: tuple[Any, Any], costs: Costs) -> None:
    one, other = accounts
    inbox = other.mailbox("INBOX")
    put(one)
    told = names(one)
    with open(os.path.join(one.root, "new", "1700000001.M1P1.other"), "wb") as file:
        file.write(message())
    inbox.refresh([*told, "1700000001.M1P1.other"])
    assert len(uids(inbox)) == 3
    [moved] = [name for name in os.listdir(os.path.join(one.root, "new")) if name.endswith(".other")]
    os.rename(os.path.join(one.root, "new", moved), os.path.join(one.root, "cur", moved + ":2,S"))
    inbox.refresh([moved, moved + ":2,S"])
    assert [row.flags for row in inbox.load().rows][-1] == SEEN
    os.unlink(os.path.join(one.root, "cur", moved + ":2,S"))
    inbox.refresh([moved + ":2,S"])
    assert len(uids(inbox)) == 2


def test_who_waited_for_the_other_to_read_the_directories_does_not_read_them_again(
    accounts: tuple[Any, Any], costs: Costs, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = accounts
    inbox = other.mailbox("INBOX")
    with open(os.path.join(one.root, "new", "1700000001.M1P1.other"), "wb") as file:
        file.write(message())
    past = 1_600_000_000_000_000_000  # old enough to be trusted once read
    for place in ("new", "cur"):
        os.utime(os.path.join(one.root, place), ns=(past, past))
    take = inbox._home.locked

    @contextlib.contextmanager
    def wait_first() -> Iterator[None]:
        one.mailbox("INBOX").refresh()
        with take():
            yield

    monkeypatch.setattr(inbox._home, "locked", wait_first)
    inbox.refresh()
    assert costs.comparisons == 1
    assert len(uids(inbox)) == 2


def test_a_prepared_message_that_could_not_be_published_is_seen_at_the_others_next_look(
    accounts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = accounts
    inbox = other.mailbox("INBOX")
    inbox.refresh()
    prepared = one.prepare("INBOX", [staged(one, message("copy"))])
    inbox.refresh()
    assert len(uids(inbox)) == 1, "it waits for the next hop's answer"
    with monkeypatch.context() as patched:
        patched.setattr(safeio, "rename", _refuse_new(safeio.rename))
        with pytest.raises(StoreUnavailable):
            prepared.publish()
    inbox.refresh()
    assert len(uids(inbox)) == 2
    inbox.refresh()
    assert len(uids(inbox)) == 2


def _refuse_new(rename: Any) -> Any:
    """The disk takes no more names into new/."""

    def refuse(source: str, target: str) -> None:
        if os.path.basename(os.path.dirname(target)) == "new":
            raise StoreUnavailable
        rename(source, target)

    return refuse
