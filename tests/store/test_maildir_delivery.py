"""How messages become visible: all or none, at once or later, and what a dead process leaves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mailserver.errors import InUse, LimitReached, MessageExpunged, NoSpace, StoreUnavailable
from mailserver.store.flags import SEEN, FlagChange
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.disk import lock, safeio
from mailserver.store.maildir.home import intent, recovery
from mailserver.store.maildir.mailbox.prepared import PreparedMessages
from mailserver.store.receiving import DATES, NewMessage
from mailserver.types import UNKNOWN_SIZE
from tests.store.maildirs import TEXT, append, files, open_account, read, uidlist, uids


@pytest.fixture
def account(tmp_path):
    return open_account(tmp_path)


def staged(account, data=TEXT, flags=()):
    stage = account.stage()
    stage.write(data)
    return NewMessage(stage, frozenset(flags), 1_000_000_000)


def leftovers(account):
    root = account.root
    return [
        name
        for directory in (os.path.join(root, "tmp"), os.path.join(root, intent.DIRECTORY))
        if os.path.isdir(directory)
        for name in os.listdir(directory)
    ] + [name for name in os.listdir(root) if name.startswith(("mailserver-new", "mailserver-deleted"))]


def test_a_message_without_flags_goes_to_new_and_one_with_flags_to_cur(account):
    append(account)
    append(account, flags=["\\Seen", "\\Flagged", "work"])
    [new] = os.listdir(os.path.join(account.root, "new"))
    [cur] = os.listdir(os.path.join(account.root, "cur"))
    assert new.endswith(f",S={len(TEXT)},W={len(TEXT)}")
    assert cur.endswith(f",S={len(TEXT)},W={len(TEXT)}:2,FSa")
    assert leftovers(account) == []


def test_the_date_is_kept_in_the_file(account):
    append(account, date=1_234_567)
    [name] = files(account)
    assert os.stat(os.path.join(account.root, "new", name)).st_mtime == 1_234_567
    assert account.mailbox("INBOX").load().rows[0].date == 1_234_567


def test_bare_lfs_are_sent_as_crlf_and_counted_so(account):
    data = b"Subject: x\n\none\r\ntwo\nthree\rfour\n"
    sent = b"Subject: x\r\n\r\none\r\ntwo\r\nthree\rfour\r\n"
    uid = append(account, data=data)
    mailbox = account.mailbox("INBOX")
    assert mailbox.load().rows[0].size == len(sent)
    assert read(mailbox, uid) == sent
    [name] = files(account)
    assert f",S={len(data)},W={len(sent)}" in name
    with open(os.path.join(account.root, "new", name), "rb") as file:
        assert file.read() == data


@pytest.mark.parametrize("size", [65535, 65536, 65537, 200_000])
def test_a_converted_message_reads_alike_in_any_pieces(account, size):
    data = (b"line\n" + b"x" * 7 + b"\r\n" + b"\n\r\n\r") * (size // 17) + b"\r" * 3 + b"\n"
    want = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    uid = append(account, data=data)
    message = account.mailbox("INBOX").open_message(uid)
    assert message.size == len(want)
    assert message.read() == want
    for offset in (0, 1, 65530, 65536, 131_071, len(want) - 1, len(want), len(want) + 10):
        for count in (0, 1, 2, 65536, 100_000):
            assert message.read(offset, count) == want[offset : offset + count], (offset, count)
    message.close()


def test_a_large_message_is_rendered_when_it_is_asked_for(account):
    data = TEXT + b"x" * 300_000
    uid = append(account, data=data)
    mailbox = account.mailbox("INBOX")
    assert mailbox.load().rows[0].size == len(data) != UNKNOWN_SIZE
    [(_uid, _row, summary)] = mailbox.summaries([uid])
    assert b"hello" in summary.envelope


def test_rendered_messages_are_not_opened_again(account, monkeypatch):
    uid = append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    rendered = mailbox.summaries([uid])
    assert len(rendered) == 1
    monkeypatch.setattr(safeio, "open_with_status", lambda path, flags=0: pytest.fail(f"{path} was opened"))
    assert [summary.envelope for _uid, _row, summary in mailbox.summaries([uid])] == [rendered[0][2].envelope]


def test_a_delivery_does_not_render_its_message(tmp_path, monkeypatch):
    store = MaildirStore(tmp_path, lambda _message: pytest.fail("it was rendered"), hostname="host.example.test")
    account = store.account("anna@example.test")
    message = staged(account, b"Subject: x\r\n\r\n" + b"x\n" * 100)
    opened = []
    real = safeio.open_with_status
    monkeypatch.setattr(safeio, "open_with_status", lambda path, *flags: opened.append(path) or real(path, *flags))
    assert len(account.append("INBOX", [message]).uids) == 1
    assert not {"cur", "new", "tmp"} & {os.path.basename(os.path.dirname(path)) for path in opened}
    assert account.mailbox("INBOX").load().rows[0].size == 14 + 300


def at(name, nth=0):
    passed = [0]

    def hook(here):
        if here == name:
            passed[0] += 1
            if passed[0] > nth:
                raise NoSpace

    return hook


@pytest.mark.parametrize("point", ["delivery.after-sync", "delivery.after-uidlist", "delivery.after-rename"])
def test_a_group_that_fails_leaves_nothing(account, monkeypatch, point):
    append(account)
    monkeypatch.setattr(safeio, "hook", at(point, 1 if point != "delivery.after-uidlist" else 0))
    messages = [staged(account) for _ in range(3)]
    with pytest.raises(NoSpace):
        account.append("INBOX", messages)
    for message in messages:
        message.staged.abort()
    monkeypatch.setattr(safeio, "hook", None)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert uids(mailbox) == [1]
    assert leftovers(account) == []
    later = append(account)
    assert later > 1
    assert len(uids(mailbox)) == 2


def test_one_message_that_cannot_be_taken_back_keeps_no_other(account, monkeypatch):
    """Directories without room: those that were told failed would be delivered twice, so that one is removed instead."""
    rename = safeio.rename
    back = []

    def full(old, new):
        if os.path.basename(os.path.dirname(new)) == "tmp":
            back.append(old)
            if len(back) == 1:
                raise NoSpace
        rename(old, new)

    monkeypatch.setattr(safeio, "hook", at("delivery.after-directory-sync"))
    monkeypatch.setattr(safeio, "rename", full)
    with pytest.raises(NoSpace):
        account.append("INBOX", [staged(account) for _ in range(3)])
    assert len(back) == 3
    assert files(account) == []


@pytest.mark.parametrize("method", ["copy", "move"])
def test_a_transfer_that_fails_half_way_is_taken_back(account, monkeypatch, method):
    account.create("there")
    for _ in range(3):
        append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    before = files(account)
    monkeypatch.setattr(safeio, "hook", at("copy.after-link" if method == "copy" else "move.after-rename", 1))
    with pytest.raises(NoSpace):
        getattr(mailbox, method)([1, 2, 3], "there")
    monkeypatch.setattr(safeio, "hook", None)
    assert files(account) == before
    assert files(account, "there") == []
    assert leftovers(account) == []
    mailbox.refresh()
    assert uids(mailbox) == [1, 2, 3]
    assert account.status("there").messages == 0
    # what was promised to the messages that did not come is not given to others
    assert mailbox.copy([1], "there").target[0] >= 1


def test_copy_of_a_message_that_is_gone_copies_none(account):
    account.create("there")
    append(account, flags=["\\Seen"])
    append(account)
    mailbox = account.mailbox("INBOX")
    os.unlink(os.path.join(account.root, "new", os.listdir(os.path.join(account.root, "new"))[0]))
    with pytest.raises(MessageExpunged):
        mailbox.copy([1, 2], "there")
    assert files(account, "there") == []
    assert mailbox.move([1, 2], "there").source == [1]


@pytest.mark.parametrize("method", ["copy", "move"])
def test_a_message_that_vanishes_during_a_transfer_is_skipped(account, monkeypatch, method):
    account.create("there")
    for _number in range(3):
        append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    place = os.path.join(account.root, "cur")
    second = os.path.join(place, sorted(os.listdir(place))[1])

    def vanish(name):
        if name == f"{method}.after-uidlist" and os.path.exists(second):
            os.unlink(second)

    monkeypatch.setattr(safeio, "hook", vanish)
    options = {"skip_expunged": True} if method == "copy" else {}
    copied = getattr(mailbox, method)([1, 2, 3], "there", **options)
    assert copied.source == [1, 3]
    monkeypatch.setattr(safeio, "hook", None)
    assert uids(account.mailbox("there")) == list(copied.target)
    assert leftovers(account) == []


def test_a_copy_shares_the_file_and_a_move_keeps_it(account):
    account.create("there")
    append(account, flags=["\\Seen", "work"])
    mailbox = account.mailbox("INBOX")
    [name] = files(account)
    inode = os.stat(os.path.join(account.root, "cur", name)).st_ino
    mailbox.copy([1], "there")
    mailbox.move([1], "there")
    there = os.path.join(account.root, ".there", "cur")
    names = os.listdir(there)
    assert len(set(names)) == 2
    assert {os.stat(os.path.join(there, other)).st_ino for other in names} == {inode}
    # a base that moved away and back must not find its old line in the uidlist
    assert name.partition(":")[0] not in [other.partition(":")[0] for other in names]
    assert account.mailbox("there").load().keywords == ("work",)


PREPARE = """
import os, sys
from mailserver.message.render import summarise
from mailserver.store.receiving import NewMessage
from mailserver.store.maildir.account.store import MaildirStore
account = MaildirStore(sys.argv[1], summarise, special_use={}).account("anna@example.test")
messages = []
for flags in ((), ("\\\\Seen", "work")):
    stage = account.stage()
    stage.write(b"Subject: prepared\\r\\n\\r\\nx\\r\\n")
    messages.append(NewMessage(stage, frozenset(flags)))
prepared = account.prepare(sys.argv[2], messages)
if sys.argv[3:] == ["wait"]:
    print("ready", flush=True)
    sys.stdin.read()
os._exit(9)
"""


def test_what_a_dead_process_prepared_is_published_by_the_next(tmp_path):
    account = open_account(tmp_path)
    append(account)
    account.create("there")
    subprocess.run([sys.executable, "-c", PREPARE, str(tmp_path / "mail"), "there"], check=False)
    assert len(leftovers(account)) == 3
    # whoever takes the lock next, for whatever it may be
    account.set_subscribed("x", subscribed=True)
    mailbox = account.mailbox("there")
    mailbox.refresh()
    assert uids(mailbox) == [1, 2]
    assert sorted(row.flags for row in mailbox.load().rows) == [0, SEEN | 1 << 5]
    assert leftovers(account) == []


def test_what_a_living_process_prepared_is_left_alone(tmp_path):
    account = open_account(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(tmp_path / "mail"), "INBOX", "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        append(account)
        assert uids(account.mailbox("INBOX")) == [1]
        process.stdin.close()
        process.wait()
    append(account)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert len(uids(mailbox)) == 4


def test_what_was_prepared_for_a_mailbox_that_is_gone_comes_to_inbox(account):
    account.create("there")
    prepared = account.prepare("there", [staged(account, flags=["\\Seen"])])
    account.delete("there")
    appended = prepared.publish()
    assert appended.mailbox == account.mailbox("INBOX").id
    assert uids(account.mailbox("INBOX")) == list(appended.uids) == [1]
    assert prepared.publish() == appended
    prepared.abort()
    assert leftovers(account) == []


def test_what_was_prepared_follows_its_mailbox(account):
    account.create("there")
    prepared = account.prepare("there", [staged(account)])
    account.rename("there", "elsewhere")
    assert prepared.publish().mailbox == account.mailbox("elsewhere").id
    assert files(account, "elsewhere") != []


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "WAIT", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("look", ["refresh", "status", "append"])
@pytest.mark.parametrize("held", ["dotlock", "account"])
def test_what_could_not_be_published_is_found_by_the_next_operation(account, held, look):
    append(account, flags=["\\Seen"])
    mailbox = account.mailbox("INBOX")
    prepared = account.prepare("INBOX", [staged(account), staged(account, flags=["\\Flagged"])])
    if held == "account":
        with lock.AccountLock(account.root), pytest.raises(InUse):
            prepared.publish()
    else:
        dotlock = os.path.join(account.root, "dovecot-uidlist.lock")
        with open(dotlock, "w") as file:
            file.write("1:another-host.example.test")
        with pytest.raises(InUse):
            prepared.publish()
        os.unlink(dotlock)
    # they have been promised
    prepared.abort()
    count = 3
    if look == "refresh":
        mailbox.refresh()
    elif look == "status":
        assert account.status("INBOX").messages == 3
    else:
        append(account)
        mailbox.refresh()
        count = 4
    assert len(uids(mailbox)) == count
    assert leftovers(account) == []
    assert prepared.publish().mailbox == mailbox.id
    mailbox.refresh()
    assert len(uids(mailbox)) == count


@pytest.mark.parametrize("missing", ["new", "cur"])
def test_a_directory_that_is_missing_does_not_lose_what_was_promised(tmp_path, missing):
    account = open_account(tmp_path)
    account.create("there")
    subprocess.run([sys.executable, "-c", PREPARE, str(tmp_path / "mail"), "there"], check=False)
    os.rmdir(os.path.join(account.root, ".there", missing))
    account.set_subscribed("x", subscribed=True)
    names = [info.name for info in account.mailboxes() if info.selectable]
    assert sum(account.status(name).messages for name in names) == 2
    assert leftovers(account) == []


def test_a_create_that_is_undone_may_lack_a_directory(account):
    account.create("there")
    os.rmdir(os.path.join(account.root, ".there", "new"))
    with lock.AccountLock(account.root):
        intent.write(account.root, intent.Intent(recovery.CREATE, {"created": ["there"]}))
    account.set_subscribed("x", subscribed=True)
    assert [info.name for info in account.mailboxes()] == ["INBOX"]
    assert leftovers(account) == []


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (recovery.PUBLISH, {}),
        (recovery.PUBLISH, {"guid": "zz", "mailbox": "INBOX", "files": []}),
        (recovery.PUBLISH, {"guid": "00", "mailbox": "INBOX", "files": [["a"]]}),
        (recovery.COPY, {"target": 3, "names": []}),
        (recovery.MOVE, {"source": "INBOX", "target": "a/../b", "pairs": []}),
        (recovery.RENAME, {"parents": 1, "pairs": []}),
        (recovery.CREATE, {"created": [None]}),
    ],
)
def test_a_spoilt_intent_is_put_aside(account, kind, payload):
    with lock.AccountLock(account.root):
        intent.write(account.root, intent.Intent(kind, payload))
    append(account)
    [name] = os.listdir(os.path.join(account.root, intent.DIRECTORY))
    assert name.endswith(".json.bad")


@pytest.mark.parametrize("error", [StoreUnavailable, NotADirectoryError])
def test_an_intent_that_the_disk_refuses_waits_and_the_account_is_served(account, monkeypatch, caplog, error):
    def fail(*_args):
        raise error

    account.create("there")
    append(account, flags=["\\Seen"])
    with lock.AccountLock(account.root):
        intent.write(account.root, intent.Intent(recovery.RENAME, {"parents": [], "pairs": [["there", "here"]]}))
    with monkeypatch.context() as patched:
        patched.setitem(recovery.SETTLERS, recovery.RENAME, fail)
        append(account)
        append(account)
        assert account.status("INBOX").messages == 3
    assert len([record for record in caplog.records if "settled" in record.getMessage()]) == 1
    append(account)
    assert "here" in [info.name for info in account.mailboxes()]
    assert leftovers(account) == []


@pytest.mark.usefixtures("impatient")
def test_another_process_finds_what_could_not_be_published(account, tmp_path):
    prepared = account.prepare("INBOX", [staged(account)])
    with lock.AccountLock(account.root), pytest.raises(InUse):
        prepared.publish()
    other = open_account(tmp_path)
    other.set_subscribed("x", subscribed=True)
    assert other.status("INBOX").messages == 1


def test_publishing_can_be_tried_again(account, monkeypatch):
    prepared = account.prepare("INBOX", [staged(account), staged(account)])
    monkeypatch.setattr(safeio, "hook", at("delivery.after-rename", 1))
    monkeypatch.setattr(PreparedMessages, "_publish_without_uids", refuse)
    with pytest.raises(NoSpace):
        prepared.publish()
    monkeypatch.undo()
    assert prepared.publish().mailbox == account.mailbox("INBOX").id
    account.mailbox("INBOX").refresh()
    assert uids(account.mailbox("INBOX")) == [1, 2]
    assert leftovers(account) == []


def refuse(*_args):
    raise NoSpace


def test_preparing_syncs_the_names_in_tmp_once_and_before_the_intent(account, monkeypatch):
    steps = []
    sync, write = safeio.sync_directory, intent.write
    monkeypatch.setattr(safeio, "sync_directory", lambda path: (steps.append(os.path.basename(path)), sync(path)))
    monkeypatch.setattr(intent, "write", lambda *args: (steps.append("intent"), write(*args))[1])
    account.prepare("INBOX", [staged(account), staged(account)])
    assert steps.count("tmp") == 1
    assert steps.index("tmp") < steps.index("intent")


def test_messages_given_up_leave_nothing(account):
    prepared = account.prepare("INBOX", [staged(account), staged(account)])
    prepared.abort()
    prepared.abort()
    assert leftovers(account) == []
    assert uids(account.mailbox("INBOX")) == []


def test_giving_up_is_all_or_none_too(tmp_path, monkeypatch):
    account = open_account(tmp_path)
    prepared = account.prepare("INBOX", [staged(account), staged(account)])
    unlink = safeio.unlink

    class Killed(BaseException):
        pass

    def die_after(path):
        unlink(path)
        raise Killed

    monkeypatch.setattr(safeio, "unlink", die_after)
    with pytest.raises(Killed):
        prepared.abort()
    monkeypatch.setattr(safeio, "unlink", unlink)
    monkeypatch.setattr(recovery, "is_alive", lambda _who: False)
    again = open_account(tmp_path)
    again.set_subscribed("x", subscribed=True)
    assert again.status("INBOX").messages in {0, 2}


def test_what_a_dead_process_left_lying_is_swept_at_the_next_start(tmp_path):
    account = open_account(tmp_path)
    os.makedirs(os.path.join(account.root, "mailserver-deleted.0123456789abcdef", "cur"))
    os.makedirs(os.path.join(account.root, "mailserver-new.0123456789abcdef", "cur"))
    old = os.path.join(account.root, "tmp", "old")
    with open(old, "w") as file:
        file.write("x")
    again = open_account(tmp_path)
    assert leftovers(again) == ["old"]  # not yet 36 hours


def test_a_lock_held_by_another_program_is_waited_for_with_a_bound(account, monkeypatch):
    append(account)
    monkeypatch.setattr(lock, "WAIT", 0.05)
    monkeypatch.setattr(lock, "WAIT", 0.05)
    other = lock.AccountLock(account.root)
    with other, pytest.raises(InUse):
        append(account)
    with open(os.path.join(account.root, "dovecot-uidlist.lock"), "w") as file:
        file.write("1:another-host.example.test")
    # Dovecot holds the list: flags can be changed, new messages wait
    account.mailbox("INBOX").store_flags([1], FlagChange.ADD, ["\\Seen"])
    account.mailbox("INBOX").expunge([1], only_deleted=False)
    with pytest.raises(InUse):
        append(account)
    os.unlink(os.path.join(account.root, "dovecot-uidlist.lock"))
    append(account)


def test_a_torn_line_of_the_uidlist_is_cut_before_the_next(account):
    append(account)
    with open(os.path.join(account.root, "dovecot-uidlist"), "a") as file:
        file.write("4")
    uid = append(account)
    assert uid >= 2
    assert [line.split()[0] for line in uidlist(account).splitlines()[1:]] == ["1", str(uid)]


@pytest.mark.parametrize("date", [-62_135_596_800, -1, 0, 2**31, 253_402_300_799])
def test_any_date_that_a_client_can_send_is_kept(account, date):
    append(account, date=date)
    assert account.mailbox("INBOX").load().rows[0].date == date


def test_the_last_uid_is_the_last(account):
    append(account)
    with open(os.path.join(account.root, "dovecot-uidlist"), "a") as file:
        file.write(f"{2**32 - 2} :1700000001.M1P1.other\n")
    with open(os.path.join(account.root, "new", "1700000001.M1P1.other"), "wb") as file:
        file.write(TEXT)
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    assert uids(mailbox) == [1, 2**32 - 2]
    with pytest.raises(LimitReached):
        append(account)
    with open(os.path.join(account.root, "new", "1700000002.M1P1.other"), "wb") as file:
        file.write(TEXT)
    mailbox.refresh()
    assert uids(mailbox) == [1, 2**32 - 2]
    assert read(mailbox, 1) == TEXT


def test_dates_are_those_of_the_files(account, tmp_path):
    """Whatever is taken survives the index."""
    given = [DATES[0], -1, 0, 2**31, 2**33 + 2**32, DATES[-1]]
    for date in given:
        stage = account.stage()
        stage.write(TEXT)
        account.append("INBOX", [NewMessage(stage, frozenset(), date)])
    assert [row.date for row in account.mailbox("INBOX").load().rows] == given
    account.close()
    for name in os.listdir(account.root):
        if name.startswith("mailserver-index"):
            os.unlink(os.path.join(account.root, name))
    mailbox = open_account(tmp_path).mailbox("INBOX")
    assert [row.date for _uid, row, _summary in mailbox.summaries(uids(mailbox))] == given
