"""Save dates of a Maildir (RFC 8514): they are in the names of the files, so that nothing but an expunge ends them."""

from __future__ import annotations

import os
import time

from mailserver.store.flags import FlagChange
from mailserver.store.maildir.mailbox import save_dates as module
from tests.store.maildirs import append, deliver, open_account, uids
from tests.store.test_maildir_index import remove_index


def test_they_survive_the_index_the_flags_and_a_change_of_the_ctime(tmp_path):
    account = open_account(tmp_path)
    inbox = account.mailbox("INBOX")
    uid = append(account, date=1_000_000_000)
    deliver(account, "1600000000.M1P1.other,S=48")
    inbox.refresh()
    [first, second] = uids(inbox)
    assert first == uid
    dates = inbox.save_dates([first, second])
    assert abs(dates[first] - time.time()) < 3600
    assert dates[second] == 1_600_000_000
    inbox.store_flags([first, second], FlagChange.ADD, ["\\Seen"])
    for place in ("new", "cur"):
        for name in os.listdir(os.path.join(account.root, place)):
            os.utime(os.path.join(account.root, place, name), (5, 5))
    account.close()
    remove_index(account)
    again = open_account(tmp_path).mailbox("INBOX")
    again.refresh()
    assert again.save_dates([first, second]) == dates


def test_a_name_without_a_time_has_the_internal_date(tmp_path):
    account = open_account(tmp_path)
    inbox = account.mailbox("INBOX")
    for number, name in enumerate(
        ("msg.5.x", "12345.old", "99999999999.far", "-1600000000.x", "1600000000", "1600000001.x")
    ):
        os.utime(deliver(account, name), (1_500_000_000 + number,) * 2)
    inbox.refresh()
    found = inbox.save_dates(uids(inbox))
    assert list(found) == uids(inbox)
    assert sorted(found.values()) == [*range(1_500_000_000, 1_500_000_005), 1_600_000_001]


def test_of_very_many_no_file_is_opened(tmp_path, monkeypatch):
    account = open_account(tmp_path)
    inbox = account.mailbox("INBOX")
    for number in range(300):
        deliver(account, f"{1_600_000_000 + number}.M1P1.other")
    inbox.refresh()

    def fail(*_arguments):
        raise AssertionError("a file is opened")

    monkeypatch.setattr(inbox, "open_message", fail)
    found = inbox.save_dates(uids(inbox))
    assert sorted(found.values()) == list(range(1_600_000_000, 1_600_000_300))


def test_the_pattern_takes_seconds_alone():
    assert module.save_dates([(1, 0, b"1600000000.x"), (3, 1, b"x")], lambda _uids: []) == {1: 1_600_000_000}
