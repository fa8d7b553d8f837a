"""Modseqs of a Maildir never go back, and none is given twice: not where the index is lost, nor after a power cut."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil

import pytest

from mailserver.store.index import database
from mailserver.types import ModSeq
from tests.store.disk import open_store
from tests.store.samples import ADD, USER, put, uids


@pytest.fixture
def account(tmp_path):
    opened = open_store(str(tmp_path / "mail")).account(USER)
    yield opened
    opened.close()


def lose_index(account) -> None:
    account.close()
    for name in os.listdir(account.root):
        if name.startswith("mailserver-index"):
            os.unlink(os.path.join(account.root, name))


def set_clock_back(monkeypatch) -> None:
    class Clock:
        time_ns = staticmethod(lambda: 1_000_000_000 * 10**9)

    monkeypatch.setattr(database, "time", Clock)


@pytest.mark.parametrize("clock", ["right", "set back"])
def test_a_new_index_has_higher_modseqs_and_no_history(account, monkeypatch, clock):
    for _ in range(3):
        put(account)
    inbox = account.mailbox("INBOX")
    known = inbox.load().modseq
    first = uids(inbox)[0]
    inbox.expunge([first], only_deleted=False)
    inbox.store_flags(uids(inbox), ADD, ["\\Seen"])
    last = inbox.load().modseq
    if clock == "set back":
        set_clock_back(monkeypatch)
    for _ in range(2):
        lose_index(account)
        inbox = account.mailbox("INBOX")
        inbox.refresh()
        loaded = inbox.load()
        assert min(loaded.modseqs) > last
        assert loaded.modseq >= max(loaded.modseqs)
        assert inbox.expunged_since(known) is None
        assert inbox.expunged_since(last) is None
        assert {row.uid for row in inbox.changes_since(last).rows} == set(uids(inbox))
        assert inbox.expunged_since(loaded.modseq) == []
        known = last = loaded.modseq
        inbox.store_flags(uids(inbox)[:1], ADD, ["\\Flagged"])
        last = inbox.load().modseq


def test_an_index_lost_in_the_middle_forgets_its_history(account):
    """The row of the mailbox is written to the new index with its old modseqs; its expunges are not there."""
    for _ in range(4):
        put(account)
    inbox = account.mailbox("INBOX")
    all_uids = uids(inbox)
    known = inbox.load().modseq
    inbox.expunge(all_uids[:1], only_deleted=False)
    home = account._home
    with home.locked():
        state = home.read(lambda index: index.mailboxes.by_name("INBOX"))
        # As if another process had removed it between the two.
        lose_index(account)
        with contextlib.suppress(FileNotFoundError):
            home.update(lambda index: index.mailboxes.save(state))
    inbox.refresh()
    assert inbox.expunged_since(known) is None
    assert list(inbox.changes_since(known).present) == uids(inbox) == all_uids[1:]


@pytest.mark.parametrize("clock", ["right", "set back"])
def test_after_a_power_cut_the_mailbox_has_a_higher_modseq(account, tmp_path, monkeypatch, clock):
    """The last commits may be undone, and with them modseqs that were reported."""
    put(account)
    inbox = account.mailbox("INBOX")
    before = inbox.load()
    account.close()
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in glob.glob(os.path.join(account.root, "mailserver-index*")):
        shutil.copy(path, kept)
    inbox = account.mailbox("INBOX")
    uid = uids(inbox)[0]
    for how in ("\\Seen", "\\Flagged"):
        inbox.store_flags([uid], ADD, [how])
    reported = inbox.load().modseq
    lose_index(account)
    for path in kept.iterdir():
        shutil.copy(path, account.root)
    if clock == "set back":
        set_clock_back(monkeypatch)
    again = open_store(str(tmp_path / "mail")).account(USER)
    again._home.boot = "another"
    inbox = again.mailbox("INBOX")
    inbox.refresh()
    after = inbox.load()
    assert after.modseq > reported > before.modseq
    assert min(after.modseqs) > reported
    assert inbox.expunged_since(ModSeq(before.modseq)) == []
    again.close()
