"""A Maildir taken over from Dovecot while mail comes in: some messages have a line in its uidlist, others not yet.

Each message keeps the UID of its line, whatever happens to the index, and Dovecot then sees the same UIDs.
"""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

from mailserver.errors import NoSpace
from mailserver.message.render import summarise
from mailserver.store.flags import FlagChange
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.settings import Settings
from mailserver.store.maildir.sync import scan
from mailserver.store.maildir.sync.batched_scan import read_in_batches
from mailserver.types import UID
from tests.store.disk import INDEX_FILES
from tests.store.maildir.dovecot import Dovecot, needs_dovecot

FIRST_UID = 10
SIZES = [10, 100, 120, 1000, 20_000]


@pytest.fixture
def top():
    memory = "/dev/shm"
    path = tempfile.mkdtemp(prefix="mailserver-adopted-", dir=memory if os.access(memory, os.W_OK) else None)
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


def fill(root: str, count: int, dead: int = 0) -> dict[str, int]:
    """A mailbox of `count` files, three of five with a line, and `dead` lines without a file; UIDs by base."""
    for place in ("new", "cur", "tmp"):
        os.makedirs(os.path.join(root, place), exist_ok=True)
    listed: dict[str, int] = {}
    uid = FIRST_UID
    for number in range(count + dead):
        base = f"{1_700_000_000 + number}.M{number}P1.host"
        if number >= count:
            listed[base] = uid
            uid += 2
            continue
        if number % 5 < 3:
            listed[base] = uid
            uid += 2
        place = f"cur/{base}:2,S" if number % 2 else f"new/{base}"
        with open(os.path.join(root, place), "wb") as file:
            file.write(b"Subject: %d\n\nbody\n" % number)
    with open(os.path.join(root, "dovecot-uidlist"), "w") as file:
        file.write(f"3 V1700000000 N{uid} G3085f01b7f11094c501100008c4a11c1\n")
        file.writelines(f"{uid} P{uid}x :{base}\n" for base, uid in listed.items())
    for place in ("new", "cur"):
        os.utime(os.path.join(root, place), (1_700_000_000, 1_700_000_000))
    return {base: uid for base, uid in listed.items() if int(base.partition(".")[0]) - 1_700_000_000 < count}


def account(top: str):
    store = MaildirStore(top, summarise, location="{home}/Maildir", special_use={}, hostname="host.example.test")
    return store.account("anna@example.test", os.path.join(top, "home"))


def uids(top: str) -> dict[str, int]:
    """UIDs by base, as a session sees them; some of the messages are read to see that they are those."""
    opened = account(top)
    mailbox = opened.mailbox("INBOX")
    mailbox.refresh()
    loaded = [int(row.uid) for row in mailbox.load().rows]
    home = Home(opened.root, Settings(summarise, "host.example.test", top))
    found = {entry.base: int(entry.uid) for entry in home.read(lambda index: index.messages.entries(1))}
    assert sorted(found.values()) == loaded
    for base, uid in sorted(found.items())[:: max(1, len(found) // 50)]:
        message = mailbox.open_message(UID(uid))
        assert message.read().split(b"\r\n", 1)[0] == b"Subject: %d" % (int(base.partition(".")[0]) - 1_700_000_000)
        message.close()
    return found


def lose_index(root: str) -> None:
    for name in INDEX_FILES:
        if os.path.exists(os.path.join(root, name)):
            os.unlink(os.path.join(root, name))


def check(top: str, listed: dict[str, int], count: int) -> dict[str, int]:
    """Everybody has a UID, and those with a line have that one."""
    root = os.path.join(top, "home/Maildir")
    told = uids(top)
    assert len(told) == count
    assert {base: told.get(base) for base in listed} == listed
    on_disk = uidlist.read(os.path.join(root, "dovecot-uidlist"))
    assert not on_disk.damaged
    assert on_disk.entries.items() >= told.items()
    return told


@pytest.mark.parametrize("dead", [0, 400], ids=["all lines alive", "with dead lines"])
@pytest.mark.parametrize("count", SIZES)
def test_uids_of_a_list_stay_when_other_mail_has_none(top, count, dead):
    root = os.path.join(top, "home/Maildir")
    listed = fill(root, count, dead)
    told = check(top, listed, count)
    assert min(uid for base, uid in told.items() if base not in listed) >= FIRST_UID + 2 * len(listed)
    lose_index(root)
    assert check(top, listed, count) == told


def test_dead_lines_go_and_the_others_keep_their_extension_fields(top):
    root = os.path.join(top, "home/Maildir")
    listed = fill(root, 100, dead=400)
    check(top, listed, 100)
    with open(os.path.join(root, "dovecot-uidlist")) as file:
        lines = file.read().splitlines()[1:]
    assert len(lines) == 100
    assert [line for line in lines if " P" in line] == [f"{uid} P{uid}x :{base}" for base, uid in listed.items()]


def test_a_directory_that_changes_all_the_time_hides_no_message(top, monkeypatch):
    """Foreign programs rename while it is read: each reading misses others."""
    root = os.path.join(top, "home/Maildir")
    listed = fill(root, 100)
    read = scan.scan_directory
    readings = iter(range(100))

    def partly(path, most=None):
        missing = next(readings) % 3
        os.utime(path)
        return [name for name in read(path, most) if int(name.partition(".")[0]) % 3 != missing]

    monkeypatch.setattr(scan, "scan_directory", partly)
    account(top).mailbox("INBOX").refresh()
    monkeypatch.undo()
    check(top, listed, 100)


def test_lines_stay_when_names_may_be_missing_from_a_reading(top, monkeypatch):
    root = os.path.join(top, "home/Maildir")
    listed = fill(root, 100)
    read = scan.read_directory

    def halved(path, most=None):
        found = read(path, most)
        return found._replace(names=sorted(found.names)[::2], racy=True, stable=False)

    monkeypatch.setattr(scan, "read_directory", halved)
    account(top).mailbox("INBOX").refresh()
    on_disk = uidlist.read(os.path.join(root, "dovecot-uidlist"))
    assert {base: on_disk.entries.get(base) for base in listed} == listed


def test_slices_keep_the_lines(top):
    root = os.path.join(top, "home/Maildir")
    listed = fill(root, 200, dead=200)
    for _done, _all in read_in_batches(Home(root, Settings(summarise, "host.example.test", top)), "INBOX", 7):
        on_disk = uidlist.read(os.path.join(root, "dovecot-uidlist"))
        assert {base: on_disk.entries.get(base) for base in listed} == listed
    told = check(top, listed, 200)
    lose_index(root)
    assert check(top, listed, 200) == told


def test_an_expunge_leaves_lines_of_files_that_the_index_does_not_know(top):
    """Mail that Dovecot has listed and our index has not seen yet, when dead lines are removed behind an expunge."""
    root = os.path.join(top, "home/Maildir")
    listed = fill(root, 600)
    check(top, listed, 600)
    mailbox = account(top).mailbox("INBOX")
    mailbox.refresh()
    everybody = [UID(uid) for uid in sorted(uids(top).values())]
    index = Home(root, Settings(summarise, "host.example.test", top))
    with index.locked():
        forgotten = index.read(lambda index: index.messages.entries(1))[-1]
        index.update(lambda index: index.messages.expunge(1, [forgotten.uid], forgotten.modseq))
    going = everybody[:-1]
    mailbox.store_flags(going, FlagChange.ADD, ["\\Deleted"])
    mailbox.expunge(going)
    on_disk = uidlist.read(os.path.join(root, "dovecot-uidlist"))
    assert on_disk.lines < 600
    assert on_disk.entries.get(forgotten.base) == forgotten.uid


def test_a_damaged_list_on_a_full_disk_is_mended_when_there_is_room(top, monkeypatch):
    root = os.path.join(top, "home/Maildir")
    listed = fill(root, 100)
    told = check(top, listed, 100)
    path = os.path.join(root, "dovecot-uidlist")
    with open(path, "a") as file:
        file.write("7 :out-of-order\n")
    replace = safeio.replace

    def full(path, data):
        raise NoSpace

    monkeypatch.setattr(safeio, "replace", full)
    assert uids(top) == told
    monkeypatch.setattr(safeio, "replace", replace)
    assert uids(top) == told
    assert not uidlist.read(path).damaged


@pytest.mark.interop
@pytest.mark.parametrize("count", SIZES)
@needs_dovecot[1]
def test_dovecot_sees_the_same_uids(top, count):
    dovecot = Dovecot(top)
    listed = fill(dovecot.root, count)
    told = check(top, listed, count)
    theirs = {guid: int(uid) for uid, guid in dovecot.fetch("uid guid")}
    assert theirs == told
    lose_index(dovecot.root)
    assert check(top, listed, count) == told
