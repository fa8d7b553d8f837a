"""A mailbox is renamed with all below it, or nothing is."""

import errno

import pytest

from mailserver.errors import BadMailboxName, NoSpace
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.home import intent
from tests.store.maildirs import append, open_account


@pytest.mark.parametrize(
    ("fault", "told"),
    [(OSError(errno.ENOTEMPTY, "Directory not empty"), BadMailboxName), (NoSpace(), NoSpace)],
)
def test_where_one_directory_cannot_be_renamed_all_keep_their_names(tmp_path, monkeypatch, fault, told):
    account = open_account(tmp_path)
    names = ["old", "old/a", "old/b"]
    for name in names:
        account.create(name)
        append(account, name)
    rename = safeio.rename

    def renamed(old, new):
        if new.endswith(".b"):
            raise fault
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(safeio, "rename", renamed)
        with pytest.raises(told):
            account.rename("old", "new")
    assert [info.name for info in account.mailboxes()] == ["INBOX", *names]
    assert [account.status(name).messages for name in names] == [1, 1, 1]
    assert not intent.read_all(account.root)
    account.rename("old", "new")
    assert [info.name for info in account.mailboxes()] == ["INBOX", "new", "new/a", "new/b"]
    account.close()
