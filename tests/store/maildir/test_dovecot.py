from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time

import pytest

from mailserver.store.flags import ANSWERED, FLAGGED, SEEN
from mailserver.store.maildir.disk import lock, reserved_space, safeio
from mailserver.store.maildir.format import keywords, subscriptions, uidlist
from mailserver.store.maildir.format.filename import MaildirName
from mailserver.store.maildir.format.keywords import Keywords
from mailserver.store.maildir.format.names import LevelEncoding
from mailserver.store.maildir.format.uid_validity import next_uid_validity
from mailserver.store.maildir.home import intent
from mailserver.store.maildir.home.folders import Layout
from mailserver.store.maildir.mailbox.staged_file import StagedFile

from .dovecot import Dovecot, needs_dovecot
from .listing import messages_in

pytestmark = needs_dovecot

MESSAGE = b"From: a@example.test\nSubject: x\n\nhi\n"  # 36 octets on disk, 40 as sent


@pytest.fixture
def dovecot(request):
    top = tempfile.mkdtemp(prefix="mailserver-dovecot-")
    try:
        yield Dovecot(top, getattr(request, "param", ""))
    finally:
        shutil.rmtree(top)


def read_list(path):
    return uidlist.read(os.path.join(path, "dovecot-uidlist"))


def deliver(path, uid, letters="", place="cur", date=None):
    """A delivery in the order of syncs that the store keeps; the base."""
    message = StagedFile(os.path.join(path, "tmp"), "mail.example.test")
    message.write(MESSAGE)
    message.sync(date)
    base = message.final_base
    with lock.dotlock(os.path.join(path, "dovecot-uidlist.lock")):
        uidlist.append(os.path.join(path, "dovecot-uidlist"), [(uid, base)])
        safeio.rename(message.path, os.path.join(path, place, base + (f":2,{letters}" if place == "cur" else "")))
        safeio.sync_directory(os.path.join(path, place))
    message.release()
    return base


def test_we_read_what_dovecot_wrote(dovecot):
    for name in ("Foo/Bar", "Entwürfe", "A&B", "台北/日本語", " lead"):
        dovecot.run("mailbox", "create", name)
    dovecot.run("mailbox", "subscribe", "INBOX", "Foo/Bar", "Entwürfe", "Ghost/X")
    for _ in range(3):
        dovecot.run("save", "-m", "Foo/Bar", data=MESSAGE)
    dovecot.run("flags", "add", "\\Seen \\Answered MyKey $Forwarded", "mailbox", "Foo/Bar", "uid", "2")
    dovecot.run("expunge", "mailbox", "Foo/Bar", "uid", "1")

    layout = Layout(dovecot.root)
    assert set(layout.mailboxes()) >= {"INBOX", "Foo/Bar", "Entwürfe", "A&B", "台北/日本語", " lead"}
    listed = set(dovecot.run("mailbox", "list").splitlines())
    assert set(layout.mailboxes()) == listed - {"Foo", "台北"}, "those are names without a mailbox"
    assert subscriptions.read(dovecot.root) == {"INBOX", "Foo/Bar", "Entwürfe", "Ghost/X"}

    path = layout.path("Foo/Bar")
    status = dovecot.status("Foo/Bar")
    known = read_list(path)
    assert not known.damaged
    assert (str(known.uid_validity), known.guid.hex()) == (status["uidvalidity"], status["guid"])
    assert str(known.uid_next) == status["uidnext"]
    messages = messages_in(path)
    assert {uid for base, uid in known.entries.items() if base in messages} == {2, 3}
    found = {known.entries[base]: MaildirName.parse(where.name) for base, where in messages.items()}
    names = keywords.read(os.path.join(path, "dovecot-keywords"))
    assert found[2].mask == SEEN | ANSWERED | names.mask(["MyKey", "$Forwarded"])
    assert (found[2].size, found[2].virtual_size) == (36, 40)
    assert found[3].mask == 0


def test_dovecot_reads_what_we_wrote(dovecot):
    layout = Layout(dovecot.root)
    layout.create("INBOX", 1_600_000_000)
    guid = os.urandom(16)
    for name in ("Entwürfe/A&B", "INBOX/sub", "Sent"):
        layout.create(name, 1_600_000_001, guid)
        guid = os.urandom(16)
    subscriptions.write(dovecot.root, {"INBOX", "Entwürfe/A&B", "Ghost/X"})
    path = layout.path("Entwürfe/A&B")
    known = Keywords().including(["$Junk", "later"])
    keywords.write(os.path.join(path, "dovecot-keywords"), known)
    bases = [
        deliver(path, 5, "FS", date=1_234_567_890), deliver(path, 9, "Rab"), deliver(path, 12, place="new"),
    ]  # fmt: skip

    assert sorted(dovecot.run("mailbox", "list").splitlines()) == [
        "Entwürfe", "Entwürfe/A&B", "INBOX", "INBOX/sub", "Sent",
    ]  # fmt: skip
    assert sorted(dovecot.run("mailbox", "list", "-s").splitlines()) == ["Entwürfe/A&B", "Ghost/X", "INBOX"]
    status = dovecot.status("Entwürfe/A&B")
    assert status["uidvalidity"] == "1600000001"
    assert status["guid"] == read_list(path).guid.hex()
    assert (status["messages"], status["uidnext"]) == ("3", "13")
    rows = dovecot.fetch("uid flags guid size.physical size.virtual date.received.unixtime", "Entwürfe/A&B")
    assert [row[0] for row in rows] == ["5", "9", "12"]
    flags = [set(row[1].split()) - {"\\Recent"} for row in rows]
    assert flags == [{"\\Flagged", "\\Seen"}, {"\\Answered", "$Junk", "later"}, set()]
    assert [row[2] for row in rows] == bases
    assert {(row[3], row[4]) for row in rows} == {("36", "40")}
    assert rows[0][5] == "1234567890"
    assert dovecot.status("Sent")["uidvalidity"] == "1600000001"


def test_turns_are_taken_without_any_message_becoming_new(dovecot):
    layout = Layout(dovecot.root)
    layout.create("INBOX", 1_600_000_000)
    path = dovecot.root
    before = read_list(path)
    deliver(path, 1)
    for turn in range(3):
        dovecot.run("save", data=MESSAGE)
        tail = read_list(path)
        assert not tail.damaged
        assert tail.uid_next == 2 * turn + 3
        signature = tail.signature
        deliver(path, tail.uid_next, "F")
        added = uidlist.read_tail(os.path.join(path, "dovecot-uidlist"), signature, tail.uid_next - 1)
        assert added is not None
        assert [uid for uid, _ in added.entries] == [tail.uid_next]
    dovecot.run("flags", "add", "\\Seen", "uid", "1")
    dovecot.run("expunge", "mailbox", "INBOX", "uid", "2")
    uidlist.rewrite(read_list(path), keep=set(messages_in(path)))
    assert [row[0] for row in dovecot.fetch("uid")] == ["1", "3", "4", "5", "6", "7"]
    after = read_list(path)
    assert (after.uid_validity, after.guid) == (before.uid_validity, before.guid)
    assert dovecot.status()["uidvalidity"] == "1600000000"
    assert dovecot.status()["guid"] == before.guid.hex()
    assert [row[1] for row in dovecot.fetch("uid flags") if "\\Flagged" in row[1]] != []


def test_dovecot_keeps_the_uids_of_a_list_that_we_mended(dovecot):
    layout = Layout(dovecot.root)
    layout.create("INBOX", 1_600_000_000)
    for uid in (5, 9, 12):
        deliver(dovecot.root, uid)
    path = os.path.join(dovecot.root, "dovecot-uidlist")
    with open(path, "r+b") as file:
        data = file.read()
        lines = data.splitlines(keepends=True)
        file.seek(0)
        file.truncate()
        file.write(lines[0] + lines[1] + b"garbage\n" + lines[2] + b"3 :low\n" + lines[3] + b"4")
    damaged = uidlist.read(path)
    assert damaged.damaged
    uidlist.rewrite(damaged)
    assert [row[0] for row in dovecot.fetch("uid")] == ["5", "9", "12"]
    assert dovecot.status()["uidvalidity"] == "1600000000"


def test_dovecot_reads_an_append_behind_a_torn_line(dovecot):
    layout = Layout(dovecot.root)
    layout.create("INBOX", 1_600_000_000)
    deliver(dovecot.root, 5)
    with open(os.path.join(dovecot.root, "dovecot-uidlist"), "ab") as file:
        file.write(b"6")
    deliver(dovecot.root, 7)
    assert [row[0] for row in dovecot.fetch("uid")] == ["5", "7"]
    assert dovecot.status()["uidvalidity"] == "1600000000"


def test_dovecot_waits_for_our_dotlock(dovecot):
    """It may move a message into new/ without the lock, but gives no UID."""
    layout = Layout(dovecot.root)
    layout.create("INBOX", 1_600_000_000)
    dovecot.run("save", data=MESSAGE)
    dovecot.fetch("uid")
    with lock.dotlock(os.path.join(dovecot.root, "dovecot-uidlist.lock")):
        with open(os.path.join(dovecot.root, "new/foreign"), "wb") as file:
            file.write(MESSAGE)
        process = dovecot.start("fetch", "uid", "mailbox", "INBOX", "all")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        assert list(read_list(dovecot.root).entries) != [], "it is still our list"
        assert "foreign" not in read_list(dovecot.root).entries
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out.split() == [b"uid:", b"1", b"uid:", b"2"]
    assert read_list(dovecot.root).entries["foreign"] == 2


def test_the_uidvalidity_counter_is_shared(dovecot):
    dovecot.run("mailbox", "create", "first")
    taken = [int(dovecot.status("first")["uidvalidity"])]
    for turn in range(2):
        taken.append(next_uid_validity(dovecot.root))
        Layout(dovecot.root).create(f"ours{turn}", taken[-1])
        assert int(dovecot.status(f"ours{turn}")["uidvalidity"]) == taken[-1]
        dovecot.run("mailbox", "create", f"theirs{turn}")
        taken.append(int(dovecot.status(f"theirs{turn}")["uidvalidity"]))
    assert taken == sorted(set(taken))
    # One counter, not two.
    assert sum(name.startswith("dovecot-uidvalidity.") for name in os.listdir(dovecot.root)) == 1


def test_foreign_flags_in_new_are_seen(dovecot):
    """Dovecot sets flags on a file in new/ without moving it."""
    dovecot.run("save", data=MESSAGE)
    dovecot.run("flags", "add", "\\Flagged", "uid", "1")
    (found,) = messages_in(dovecot.root).values()
    assert MaildirName.parse(found.name).mask == FLAGGED


def test_what_we_rename_dovecot_sees_under_the_same_uid(dovecot):
    dovecot.run("save", data=MESSAGE)
    dovecot.fetch("uid")
    (found,) = messages_in(dovecot.root).values()
    name = MaildirName.parse(found.name).with_mask(SEEN)
    # Dovecot trusts a directory whose mtime is the one it knows.
    time.sleep(0.01)
    safeio.rename(os.path.join(dovecot.root, found.place, found.name), os.path.join(dovecot.root, "cur", name.format()))
    ((uid, flags),) = dovecot.fetch("uid flags")
    assert uid == "1"
    assert "\\Seen" in flags


def test_both_deliver_at_the_same_time(dovecot):
    """No UID is given twice, none changes, and nothing is lost."""
    layout = Layout(dovecot.root)
    layout.create("INBOX", 1_600_000_000)
    dovecot.give()
    path = dovecot.root

    def work():
        with open(os.path.join(dovecot.top, "home/ours"), "w") as told:
            for _ in range(40):
                message = StagedFile(os.path.join(path, "tmp"), "mail.example.test")
                message.write(MESSAGE)
                message.sync()
                with lock.dotlock(os.path.join(path, "dovecot-uidlist.lock")):
                    known = read_list(path)
                    assert not known.damaged
                    uidlist.append(known.path, [(known.uid_next, message.final_base)])
                    safeio.rename(message.path, os.path.join(path, "cur", f"{message.final_base}:2,"))
                    safeio.sync_directory(os.path.join(path, "cur"))
                print(known.uid_next, message.final_base, file=told)
                message.release()
                time.sleep(0.01)

    child = dovecot.fork(work)
    for _ in range(8):
        dovecot.run("save", data=MESSAGE)
        dovecot.fetch("uid")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with open(os.path.join(dovecot.top, "home/ours")) as told:
        ours = [tuple(line.split()) for line in told]
    rows = dovecot.fetch("uid guid")
    assert len(ours) == 40
    assert len({uid for uid, _ in rows}) == len(rows) == 48
    assert set(ours) <= {(uid, guid) for uid, guid in rows}
    known = read_list(path)
    assert not known.damaged
    assert (known.uid_validity, len(known.entries)) == (1_600_000_000, 48)


@pytest.mark.parametrize("dovecot", ["mailbox_list_utf8 = yes"], indirect=True)
def test_names_in_utf_8_on_disk(dovecot):
    dovecot.run("mailbox", "create", "Entwürfe/A&B")
    dovecot.run("mailbox", "subscribe", "Entwürfe/A&B")
    layout = Layout(dovecot.root, LevelEncoding(utf8=True))
    assert "Entwürfe/A&B" in layout.mailboxes()
    assert subscriptions.read(dovecot.root, LevelEncoding(utf8=True)) == {"Entwürfe/A&B"}
    layout.create("日本語/é&", 1_600_000_001)
    subscriptions.write(dovecot.root, {"INBOX", "日本語/é&"}, LevelEncoding(utf8=True))
    assert "日本語/é&" in dovecot.run("mailbox", "list").splitlines()
    assert sorted(dovecot.run("mailbox", "list", "-s").splitlines()) == ["INBOX", "日本語/é&"]
    assert dovecot.status("日本語/é&")["uidvalidity"] == "1600000001"


def test_files_of_ours_are_no_mailboxes_to_dovecot(dovecot):
    Layout(dovecot.root).create("INBOX", 1_600_000_000)
    with lock.AccountLock(dovecot.root):
        intent.write(dovecot.root, intent.Intent("rename", {}))
    assert reserved_space.ensure(dovecot.root)
    os.mkdir(os.path.join(dovecot.root, "mailserver-new.0123"))
    os.mkdir(os.path.join(dovecot.root, "mailserver-new.0123/cur"))
    assert dovecot.run("mailbox", "list").splitlines() == ["INBOX"]


def test_uids_and_validity_survive_a_rewrite_by_dovecot(dovecot):
    """It rewrites the list when a message is expunged and others are there; the tail is then another file's."""
    Layout(dovecot.root).create("INBOX", 1_600_000_000)
    for uid in range(1, 41):
        deliver(dovecot.root, uid)
    known = read_list(dovecot.root)
    dovecot.run("expunge", "mailbox", "INBOX", "uid", "1:35")
    dovecot.run("save", data=MESSAGE)
    assert [row[0] for row in dovecot.fetch("uid")] == ["36", "37", "38", "39", "40", "41"]
    again = read_list(dovecot.root)
    assert (again.uid_validity, again.guid, again.uid_next) == (known.uid_validity, known.guid, 42)
    assert list(again.entries.values()) == [36, 37, 38, 39, 40, 41]
    assert uidlist.read_tail(os.path.join(dovecot.root, "dovecot-uidlist"), known.signature, 40) is None
