"""A Maildir whose old copy is put in its place: messages come back below UIDs that a worker keeps in memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from mailserver.store.live import LiveAccount, LiveAccounts
from tests.fakes import DirectRunner, run_now
from tests.store.disk import USER, open_store, scratch
from tests.store.samples import message, put


@pytest.fixture
def account() -> Iterator[LiveAccount]:
    """With messages 1 to 3, of which a copy was made, then 2 expunged and 4 delivered."""
    with scratch() as root:
        accounts = LiveAccounts(open_store(root), DirectRunner)
        account = run_now(accounts.open(USER))
        for number in range(3):
            put(account.account, data=message(body=f"number {number}"))
        shutil.copytree(
            account.account.root,
            f"{account.account.root}.copy",
            ignore=shutil.ignore_patterns("mailserver-*"),
            symlinks=True,
        )
        live = run_now(account.select("INBOX"))
        run_now(live.change(lambda mailbox: mailbox.expunge([2], only_deleted=False)))
        put(account.account, data=message(body="late"))
        run_now(live.refresh())
        assert list(live.columns.uids) == [1, 3, 4]
        account.release(live)
        yield account
        run_now(next(iter(accounts.close())))


def put_back(account: LiveAccount) -> None:
    root = account.account.root
    os.rename(root, f"{root}.gone")
    os.rename(f"{root}.copy", root)


def test_who_selects_next_sees_what_came_back(account: LiveAccount) -> None:
    put_back(account)
    live = run_now(account.select("INBOX"))
    assert list(live.columns.uids) == [1, 2, 3]
    assert live.columns.whole


def test_a_session_that_has_it_open_goes_on_and_the_next_one_sees_it(account: LiveAccount) -> None:
    live = run_now(account.select("INBOX"))
    put_back(account)
    run_now(live.refresh())
    assert list(live.columns.uids) == [1, 3], "no number of the session may change for a message put between"
    account.release(live)
    assert list(run_now(account.select("INBOX")).columns.uids) == [1, 2, 3]
