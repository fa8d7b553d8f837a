"""A real Dovecot and our store take turns on one account, and share it: the same mailboxes, UIDs and flags for both."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time

import pytest

from mailserver.message.render import summarise
from mailserver.store.flags import FlagChange
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.format.keywords import Keywords
from mailserver.store.maildir.sync.batched_scan import read_in_batches
from mailserver.store.receiving import NewMessage
from tests.store.maildir.dovecot import Dovecot, needs_dovecot
from tests.store.maildirs import read, uids

pytestmark = needs_dovecot

TEXT = b"From: a@example.test\r\nSubject: hello\r\n\r\nbody\r\n"
HIDDEN = {"\\Recent"}


@pytest.fixture
def dovecot():
    top = tempfile.mkdtemp(prefix="mailserver-dovecot-")
    try:
        yield Dovecot(top)
    finally:
        shutil.rmtree(top)


def open_account(dovecot, special_use=None):
    store = MaildirStore(
        dovecot.top, summarise, location="{home}/Maildir", special_use=special_use or {}, hostname="host.example.test"
    )
    return store.account("anna@example.test", os.path.join(dovecot.top, "home"))


def append(account, name="INBOX", data=TEXT, flags=()):
    stage = account.stage()
    stage.write(data)
    account.append(name, [NewMessage(stage, frozenset(flags), 1_000_000_000)])


def ours(account, name="INBOX"):
    """UIDVALIDITY, UIDNEXT, GUID, and flags by UID."""
    mailbox = account.mailbox(name)
    mailbox.refresh()
    snapshot = mailbox.load()
    known = Keywords(snapshot.keywords)
    flags = {row.uid: set(known.flags(row.flags)) for row in snapshot.rows}
    return snapshot.uid_validity, snapshot.uid_next, mailbox.id.hex(), flags


def theirs(dovecot, name="INBOX"):
    flags = {int(uid): set(words.split()) - HIDDEN for uid, words in dovecot.fetch("uid flags", name)}
    status = dovecot.status(name)
    return int(status["uidvalidity"]), int(status["uidnext"]), status["guid"], flags


def names(account):
    return {info.name for info in account.mailboxes() if info.selectable}


def dovecot_names(dovecot):
    return set(dovecot.run("mailbox", "list").splitlines())


def test_dovecot_reads_what_we_wrote(dovecot):
    account = open_account(dovecot, {"Sent": "Sent"})
    append(account)
    append(account, flags=["\\Seen", "\\Flagged", "$Forwarded", "work"])
    account.create("Entwürfe/alt")
    append(account, "Entwürfe/alt", flags=["\\Draft"])
    mailbox = account.mailbox("INBOX")
    mailbox.copy([1, 2], "Entwürfe/alt")
    mailbox.move([1], "Sent")
    mailbox.store_flags([2], FlagChange.ADD, ["new-one", "\\Answered"])
    account.set_subscribed("Entwürfe/alt", subscribed=True)
    for name in ("INBOX", "Entwürfe/alt", "Sent"):
        assert theirs(dovecot, name) == ours(account, name)
    assert dovecot_names(dovecot) == names(account)
    assert set(dovecot.run("mailbox", "list", "-s").split()) == {"Entwürfe/alt", "Sent"}


def test_we_read_what_dovecot_wrote(dovecot):
    for number in range(5):
        dovecot.run("save", data=TEXT.replace(b"hello", b"n%d" % number))
    dovecot.run("flags", "add", "\\Seen work $Forwarded", "mailbox", "INBOX", "uid", "2:3")
    dovecot.run("mailbox", "create", "Entwürfe/alt")
    dovecot.run("mailbox", "subscribe", "Entwürfe/alt")
    dovecot.run("copy", "Entwürfe/alt", "mailbox", "INBOX", "uid", "3,5")
    dovecot.run("expunge", "mailbox", "INBOX", "uid", "4")
    account = open_account(dovecot, {"Sent": "Sent"})
    for name in ("INBOX", "Entwürfe/alt"):
        assert ours(account, name) == theirs(dovecot, name)
    assert account.subscriptions() == {"Entwürfe/alt"}
    assert "Sent" not in names(account)
    mailbox = account.mailbox("INBOX")
    assert read(mailbox, 2) == TEXT.replace(b"hello", b"n1")
    assert sum(row.size for row in mailbox.measure(uids(mailbox))) == 4 * (len(TEXT) - 3)


def test_annotations_follow_dovecot(dovecot):
    account = open_account(dovecot)
    account.create("a")
    account.annotate("a", {"/private/x": b"1"}, 10)
    account.annotate("INBOX", {"/private/x": b"2"}, 10)
    dovecot.run("mailbox", "rename", "a", "b")
    dovecot.run("save", "-m", "b", data=TEXT)
    assert account.annotations("b") == {"/private/x": b"1"}
    assert ours(account, "b") == theirs(dovecot, "b")
    dovecot.run("mailbox", "delete", "b")
    dovecot.run("mailbox", "create", "b")
    assert account.annotations("b") == {}
    assert account.annotations("INBOX") == {"/private/x": b"2"}


@pytest.mark.parametrize("seed", [1, 2])
def test_taking_turns(dovecot, seed):
    dice = random.Random(seed)
    account = open_account(dovecot)
    account.create("there")

    def our_turn():
        mailbox = account.mailbox("INBOX")
        mailbox.refresh()
        uids = [row.uid for row in mailbox.load().rows]
        some = dice.sample(uids, min(len(uids), 2))
        match dice.randrange(5):
            case 0 | 1:
                append(account, flags=dice.sample(["\\Seen", "one", "two", "three"], 2))
            case 2:
                mailbox.store_flags(some, FlagChange.REPLACE, dice.sample(["\\Flagged", "four", "one"], 2))
            case 3:
                mailbox.move(some[:1], "there")
            case 4:
                mailbox.expunge(some[:1], only_deleted=False)

    def their_turn():
        _validity, _next, _guid, flags = theirs(dovecot)
        some = ",".join(map(str, dice.sample(sorted(flags), min(len(flags), 2)))) or "1"
        match dice.randrange(5):
            case 0 | 1:
                dovecot.run("save", data=TEXT)
            case 2:
                dovecot.run("flags", "replace", "\\Seen five two", "mailbox", "INBOX", "uid", some)
            case 3:
                dovecot.run("move", "there", "mailbox", "INBOX", "uid", some)
            case 4:
                dovecot.run("expunge", "mailbox", "INBOX", "uid", some.split(",")[0])

    told: dict[str, tuple[int, int]] = {}
    for turn in range(12):
        dice.choice([our_turn, their_turn])()
        # What went wrong in the other mailbox is still wrong two turns later.
        for name in ("INBOX", "there") if turn % 3 == 2 else ("INBOX",):
            mine = ours(account, name)
            assert mine == theirs(dovecot, name)
            validity, uid_next, _guid, _flags = mine
            assert told.get(name, (validity, 0))[0] == validity
            assert told.get(name, (validity, 0))[1] <= uid_next
            told[name] = validity, uid_next


def test_at_the_same_time(dovecot):
    account = open_account(dovecot)
    append(account)
    before = ours(account)
    account.close()

    def work():
        mine = open_account(dovecot)
        mailbox = mine.mailbox("INBOX")
        for _ in range(25):
            append(mine, data=TEXT.replace(b"body", b"ours"))
            mailbox.refresh()
            uids = [row.uid for row in mailbox.load().rows]
            mailbox.store_flags(uids[-2:], FlagChange.ADD, ["\\Flagged", "work"])
            time.sleep(0.01)

    dovecot.give()
    child = dovecot.fork(work)
    saved = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        dovecot.run("save", data=TEXT.replace(b"body", b"theirs"))
        dovecot.run("flags", "add", "\\Seen", "mailbox", "INBOX", "1:*")
        saved += 1
        assert saved < 500
    account = open_account(dovecot)
    mine = ours(account)
    assert mine == theirs(dovecot)
    assert mine[0] == before[0]
    assert mine[2] == before[2]
    mailbox = account.mailbox("INBOX")
    bodies = [read(mailbox, uid).rpartition(b"\r\n\r\n")[2] for uid in mine[3]]
    assert bodies.count(b"ours\r\n") == 25
    assert bodies.count(b"theirs\r\n") == saved


@pytest.mark.parametrize("slices", range(5))
def test_dovecot_takes_over_between_the_slices_of_a_first_look(dovecot, slices):
    """It numbers what has no UID yet, in an order of its own; what was numbered before keeps its UID."""
    account = open_account(dovecot)
    box = os.path.join(dovecot.top, "home", "Maildir", ".Big")
    for part in ("cur", "new", "tmp"):
        os.makedirs(os.path.join(box, part))
    for number in range(30):
        with open(os.path.join(box, "cur", f"{1_600_000_000 + number * 7 % 100}.M{number}P1.host:2,S"), "wb") as file:
            file.write(TEXT)
    reading = read_in_batches(account._home, "Big", 10)
    told = [next(reading) for _ in range(min(slices, 4))]
    before = {entry.uid: entry.base for entry in account._home.index().messages.entries(1)} if slices > 1 else {}
    assert len(before) == 10 * max(0, min(slices, 4) - 1)
    seen = theirs(dovecot, "Big")
    assert len(seen[3]) == 30
    reading.close() if slices == 4 else list(reading)
    assert ours(account, "Big") == theirs(dovecot, "Big")
    state = account._home.index().mailboxes.by_name("Big")
    after = {entry.uid: entry.base for entry in account._home.index().messages.entries(state.key)}
    assert before.items() <= after.items()
    assert list(after) == list(seen[3])
    assert told == [(done, 30) for done in range(0, 10 * len(told), 10)]


def test_keywords_beyond_the_letters_survive_turns_of_dovecot(dovecot):
    """It sees the letters alone. Names of files keep the others, whatever it does but copy."""
    words = [f"word{number}" for number in range(40)]
    letters = set(words[:26])
    account = open_account(dovecot)
    for number in range(3):
        append(account, data=TEXT.replace(b"hello", b"n%d" % number))
    account.create("there")
    mailbox = account.mailbox("INBOX")
    mailbox.store_flags([1, 2], FlagChange.ADD, [*words, "\\Seen"])
    mailbox.store_flags([3], FlagChange.ADD, ["word30"])
    assert theirs(dovecot)[3] == {1: {*letters, "\\Seen"}, 2: {*letters, "\\Seen"}, 3: set()}
    dovecot.run("flags", "add", "\\Flagged", "mailbox", "INBOX", "uid", "1,3")
    dovecot.run("flags", "remove", "word3", "mailbox", "INBOX", "uid", "1")
    dovecot.run("flags", "replace", "word5 \\Seen", "mailbox", "INBOX", "uid", "2")
    # It has no letter for this one, and keeps it for itself.
    dovecot.run("flags", "add", "dovecots", "mailbox", "INBOX", "uid", "3")
    expected = {
        1: {*words, "\\Seen", "\\Flagged"} - {"word3"},
        2: {*words[26:], "word5", "\\Seen"},
        3: {"word30", "\\Flagged"},
    }
    assert ours(account)[3] == expected
    dovecot.run("copy", "there", "mailbox", "INBOX", "uid", "1")
    dovecot.run("expunge", "mailbox", "INBOX", "uid", "3")
    dovecot.run("save", data=TEXT)
    assert ours(account, "there")[3][1] == {*letters, "\\Seen", "\\Flagged"} - {"word3"}
    del expected[3]
    assert ours(account)[3] == {**expected, 4: set()}
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    mailbox.copy([1], "there")
    dovecot.run("mailbox", "rename", "there", "elsewhere")
    assert ours(account, "elsewhere")[3][2] == expected[1]
    dovecot.run("mailbox", "delete", "elsewhere")
    dovecot.run("mailbox", "create", "elsewhere")
    append(account, "elsewhere", flags=["one"])
    assert ours(account, "elsewhere")[3] == {1: {"one"}}
