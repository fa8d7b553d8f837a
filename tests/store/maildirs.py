"""A Maildir account for tests, and what other programs do to it."""

from __future__ import annotations

import os
import time

from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.receiving import NewMessage

USER = "anna@example.test"
TEXT = b"From: a@example.test\r\nSubject: hello\r\n\r\nbody\r\n"


def open_account(tmp_path):
    return MaildirStore(tmp_path / "mail", summarise, special_use={}, hostname="host.example.test").account(USER)


def deliver(account, name="1700000001.M1P1.other", data=TEXT, place="new"):
    path = os.path.join(account.root, place, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def append(account, name="INBOX", data=TEXT, flags=(), date=1_000_000_000):
    stage = account.stage()
    stage.write(data)
    [uid] = account.append(name, [NewMessage(stage, frozenset(flags), date)]).uids
    return uid


def uids(mailbox):
    return [row.uid for row in mailbox.load().rows]


def files(account, name="INBOX"):
    root = account.root if name == "INBOX" else os.path.join(account.root, "." + name)
    return sorted(os.listdir(os.path.join(root, "new")) + os.listdir(os.path.join(root, "cur")))


def name_of(account, uid):
    """The file name of a message in INBOX."""
    [base] = [line.split(":", 1)[1] for line in uidlist(account).splitlines()[1:] if line.split()[0] == str(uid)]
    [name] = [name for name in files(account) if name.partition(":")[0] == base]
    return name


def read(mailbox, uid):
    message = mailbox.open_message(uid)
    try:
        data = message.read()
        assert len(data) == message.size
        return data
    finally:
        message.close()


def uidlist(account):
    with open(os.path.join(account.root, "dovecot-uidlist")) as file:
        return file.read()


def settle(mailbox):
    """Let the directories' times be old enough to prove something."""
    for path in mailbox.watched_paths:
        old = time.time_ns() - 10_000_000_000
        os.utime(path, ns=(old, old))
    mailbox.refresh()
