"""A program that honours Dovecot's lock and never pauses: our reading gets its turn, and loses nothing."""

from __future__ import annotations

import os

from mailserver.store.maildir.sync import reconcile
from tests.store.maildirs import deliver, open_account, uidlist, uids


def test_deliveries_without_a_pause_do_not_starve_us(tmp_path, monkeypatch):
    account = open_account(tmp_path)
    account.mailbox("INBOX").refresh()
    list_path = os.path.join(account.root, "dovecot-uidlist")
    scan = reconcile._Reconciliation._scan
    delivered = 0

    def scan_while_others_deliver(self, *given):
        """Each time we have looked at the directories, one more message comes, unless we have the lock."""
        nonlocal delivered
        found = scan(self, *given)
        if not os.path.exists(list_path + ".lock"):
            delivered += 1
            assert delivered < 50
            base = f"17000000{delivered:02d}.M1P1.other"
            next_uid = max((int(line.split()[0]) for line in uidlist(account).splitlines()[1:]), default=0) + 1
            with open(list_path, "a") as file:
                file.write(f"{next_uid} :{base}\n")
            deliver(account, base)
        return found

    monkeypatch.setattr(reconcile._Reconciliation, "_scan", scan_while_others_deliver)
    # One that has no line yet, so that we have to write.
    deliver(account, "1600000000.M1P1.other")
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    monkeypatch.undo()
    mailbox.refresh()
    assert delivered >= 1
    assert len(uids(mailbox)) == delivered + 1
    assert uids(mailbox) == [int(line.split()[0]) for line in uidlist(account).splitlines()[1:]]
