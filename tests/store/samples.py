"""What the contract of stores and the other tests of them put in and look at."""

from __future__ import annotations

from collections.abc import Iterable

from mailserver.store.columns import Columns
from mailserver.store.flags import KEYWORD_BIT, SYSTEM_FLAGS, FlagChange
from mailserver.store.interfaces import Account, Mailbox
from mailserver.store.receiving import NewMessage
from mailserver.types import UID

USER = "anna@example.test"
DATE = 1_000_000_000  # 2001-09-09, day 11574
DAY = 11574
ADD, REMOVE, REPLACE = FlagChange.ADD, FlagChange.REMOVE, FlagChange.REPLACE


def message(subject: str = "hello", body: str = "Some text.") -> bytes:
    return (
        f"From: Anna <anna@example.test>\r\nTo: bert@example.org\r\nSubject: {subject}\r\n"
        f"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\nMessage-ID: <{subject}@example.test>\r\nX-Odd: strange {subject}\r\n"
        f"\r\n{body}\r\n"
    ).encode()


def staged(account: Account, data: bytes, flags: Iterable[str] = (), date: int | None = DATE) -> NewMessage:
    stage = account.stage()
    # In pieces, as a network brings them.
    for at in range(0, len(data), 50):
        stage.write(data[at : at + 50])
    assert stage.size == len(data)
    return NewMessage(stage, frozenset(flags), date)


def put(account: Account, name: str = "INBOX", data: bytes | None = None, flags: Iterable[str] = ()) -> UID:
    """Append one message."""
    appended = account.append(name, [staged(account, message() if data is None else data, flags)])
    [uid] = appended.uids
    return uid


def names(account: Account) -> dict[str, bool]:
    """Name -> is it selectable?"""
    return {info.name: info.selectable for info in account.mailboxes()}


def uids(mailbox: Mailbox) -> list[int]:
    return [row.uid for row in mailbox.load().rows]


def flags(mailbox: Mailbox) -> dict[int, set[str]]:
    """UID -> flags by name, keywords in lower case."""
    snapshot = mailbox.load()
    bits = {**SYSTEM_FLAGS, **{word.lower(): 1 << KEYWORD_BIT + n for n, word in enumerate(snapshot.keywords)}}
    return {row.uid: {name for name, bit in bits.items() if row.flags & bit} for row in snapshot.rows}


def content(mailbox: Mailbox, uid: int) -> bytes:
    opened = mailbox.open_message(UID(uid))
    try:
        data = opened.read()
        assert opened.size == len(data)
        return data
    finally:
        opened.close()


def picture(account: Account, name: str) -> tuple[object, ...]:
    """All that a client can see of a mailbox."""
    mailbox = account.mailbox(name)
    mailbox.refresh()
    status = account.status(name)
    flagged = flags(mailbox)
    return (
        mailbox.id,
        status.uid_validity,
        [(uid, sorted(flagged[uid]), content(mailbox, uid)) for uid in flagged],
    )


def assert_equal(columns: Columns, mailbox: Mailbox) -> None:
    """Columns brought up to date by changes say what a fresh load says."""
    fresh = Columns(mailbox.load())
    assert list(columns.flags) == list(fresh.flags)
    for column in ("uids", "modseqs", "modseq", "keywords", "uid_next", "uid_validity"):
        assert getattr(columns, column) == getattr(fresh, column), column
