"""A mailbox with many unseen files, read a slice at a time: whatever comes in between, no UID is lost, changed or used
twice, and who comes next goes on where it stopped.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from mailserver.errors import NoSpace
from mailserver.message.render import summarise
from mailserver.store.flags import FlagChange
from mailserver.store.index import packed_columns
from mailserver.store.index.records import Entry
from mailserver.store.interfaces import ScanTooLarge
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.settings import Settings
from mailserver.store.maildir.sync.batched_scan import ScanLock, read_in_batches
from tests.store.crash import in_child
from tests.store.workload import stage

FILES = 23
AT_ONCE = 5


class Box:
    """A Maildir that nobody has seen."""

    def __init__(self, root: str) -> None:
        self.root = root
        for part in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(root, part))
        self.settings = Settings(summarise, "host.example.test", root, search_index=False, many=10)

    def fill(self, count: int = FILES, start: int = 0, place: str = "cur", suffix: str = ":2,S") -> None:
        for number in range(start, start + count):
            # Written in an order that is not theirs.
            name = f"{1_600_000_000 + number * 7 % 1000}.M{number}P1.host"
            self.put(place, name + (suffix if place == "cur" else ""))
        # Long ago, so that an equal time proves something.
        for part in ("cur", "new"):
            os.utime(os.path.join(self.root, part), (10**9 + start, 10**9 + start))

    def put(self, place: str, name: str) -> None:
        with open(os.path.join(self.root, place, name), "wb") as stream:
            stream.write(b"Subject: x\n\ny\n")

    def home(self) -> Home:
        return Home(self.root, self.settings)

    def account(self) -> MaildirAccount:
        return MaildirAccount("anna@example.test", self.root, self.settings)

    def on_disk(self) -> set[str]:
        return {name.partition(":")[0] for part in ("cur", "new") for name in os.listdir(os.path.join(self.root, part))}

    def listed(self) -> dict[int, str]:
        """UID -> base, as Dovecot reads the uidlist; it must rise."""
        with open(os.path.join(self.root, "dovecot-uidlist"), "rb") as stream:
            lines = stream.read().decode().splitlines()[1:]
        pairs = [(int(line.partition(" ")[0]), line.split(":")[1]) for line in lines]
        assert [uid for uid, _base in pairs] == sorted({uid for uid, _base in pairs})
        return dict(pairs)

    def entries(self) -> list[Entry]:
        """As the index has them, without looking at the disk."""
        home = self.home()
        try:
            state = home.index().mailboxes.by_name("INBOX")
            return [] if state is None else home.index().messages.entries(state.key)
        finally:
            home.close()

    def indexed(self) -> dict[int, str]:
        """UID -> base."""
        return {entry.uid: entry.base for entry in self.entries()}

    def finish(self) -> dict[int, str]:
        """Another process reads the rest; what it tells then agrees with list and disk."""
        home = self.home()
        for _ in read_in_batches(home, "INBOX", AT_ONCE):
            pass
        home.close()
        account = self.account()
        mailbox = account.mailbox("INBOX")
        mailbox.refresh()
        snapshot = mailbox.load()
        uids = list(snapshot.uids)
        account.close()
        indexed = self.indexed()
        assert list(indexed) == uids
        entries = self.entries()
        assert list(snapshot.flags) == [entry.flags for entry in entries]
        assert list(snapshot.modseqs) == [entry.modseq for entry in entries]
        assert set(indexed.values()) == self.on_disk()
        listed = self.listed()
        assert {uid: listed[uid] for uid in uids} == indexed
        return indexed


@pytest.fixture(autouse=True)
def pack_small_ones(monkeypatch):
    monkeypatch.setattr(packed_columns, "WORTH", 1)


@pytest.fixture
def box(tmp_path) -> Box:
    return Box(str(tmp_path / "Maildir"))


def test_uids_follow_the_names_and_progress_is_told(box):
    box.fill()
    told = list(read_in_batches(box.home(), "INBOX", AT_ONCE))
    assert told == [(0, 23), (5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    assert list(box.listed().values()) == sorted(box.on_disk())
    assert box.finish() == dict(enumerate(sorted(box.on_disk()), 1))


def test_it_is_what_one_look_would_have_made(box, tmp_path):
    box.fill()
    box.fill(4, 100, "new")
    other = Box(str(tmp_path / "other"))
    other.fill()
    other.fill(4, 100, "new")
    for _ in read_in_batches(box.home(), "INBOX", AT_ONCE):
        pass
    pictures = []
    for each in (box, other):
        account = each.account()
        mailbox = account.mailbox("INBOX")
        mailbox.refresh()
        snapshot = mailbox.load()
        pictures.append((list(snapshot.uids), list(snapshot.flags), list(snapshot.sizes), mailbox.status().recent))
        account.close()
    assert pictures[0] == pictures[1]
    assert pictures[0][3] == 4


def test_afterwards_no_file_and_no_row_is_read_again(box, monkeypatch):
    box.fill(200)
    for _ in read_in_batches(box.home(), "INBOX", 60):
        pass
    account = box.account()
    mailbox = account.mailbox("INBOX")
    index = account._home.index()
    monkeypatch.setattr("mailserver.store.maildir.mailbox.mailbox.reconcile", None)
    monkeypatch.setattr(index.messages, "columns", None)
    mailbox.refresh()
    assert len(mailbox.load().uids) == 200


def test_a_bounded_account_says_who_is_to_read_it(box):
    box.fill()
    account = box.account()
    with account.bounded(), pytest.raises(ScanTooLarge) as much:
        account.mailbox("INBOX")
    assert much.value.order["mailbox"] == "INBOX"
    assert much.value.order["root"] == box.root
    assert not box.indexed()
    # Who does not say that it may be put off gets all.
    assert account.status("INBOX").messages == FILES
    with account.bounded():
        mailbox = account.mailbox("INBOX")
        mailbox.refresh()
        # So many are known that these few more are no reason.
        box.fill(3, 500)
        mailbox.refresh()
    assert mailbox.status().messages == FILES + 3


def test_a_long_list_of_dovecots_is_not_parsed_where_it_is_bounded(box, monkeypatch):
    box.fill()
    lines = "".join(f"{uid} :{base}\n" for uid, base in enumerate(sorted(box.on_disk()), 100))
    with open(os.path.join(box.root, "dovecot-uidlist"), "w") as stream:
        stream.write("3 V1700000000 N200 G3085f01b7f11094c501100008c4a11c1\n" + lines)
    read = uidlist.read
    monkeypatch.setattr(uidlist, "read", None)
    account = box.account()
    with account.bounded(), pytest.raises(ScanTooLarge):
        account.mailbox("INBOX")
    monkeypatch.setattr(uidlist, "read", read)
    assert list(box.finish()) == list(range(100, 100 + FILES))


# --- killed


def points(box: Box) -> list[tuple[str, int]]:
    """Every named point that is passed, and how often before."""
    passed: list[tuple[str, int]] = []
    counts: dict[str, int] = {}

    def count(name: str) -> None:
        passed.append((name, counts.get(name, 0)))
        counts[name] = counts.get(name, 0) + 1

    safeio.hook = count
    try:
        for _ in read_in_batches(box.home(), "INBOX", AT_ONCE):
            pass
    finally:
        safeio.hook = None
    return passed


def test_killed_anywhere_it_goes_on_where_it_stopped(tmp_path):
    dry = Box(str(tmp_path / "dry"))
    dry.fill()
    passed = points(dry)
    assert {name for name, _nth in passed} >= {"batches.begun", "batches.after-append", "batches.after-batch"}
    for number, (name, nth) in enumerate(passed):
        box = Box(str(tmp_path / f"box{number}"))
        box.fill()

        def die_there(name: str = name, nth: int = nth, box: Box = box) -> None:
            seen: dict[str, int] = {}

            def die(point: str) -> None:
                if point == name and seen.setdefault(point, 0) == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen[point] = seen.get(point, 0) + 1

            safeio.hook = die
            for _ in read_in_batches(box.home(), "INBOX", AT_ONCE):
                pass

        assert in_child(die_there) == signal.SIGKILL, (name, nth)
        listed = os.path.exists(os.path.join(box.root, "dovecot-uidlist"))
        before = box.listed() if listed else {}
        told = box.indexed()
        assert told.items() <= before.items(), (name, nth)
        after = box.finish()
        assert before.items() <= after.items(), (name, nth)
        # Nothing was burnt, and the order is that of the names.
        assert after == dict(enumerate(sorted(box.on_disk()), 1)), (name, nth)


def test_after_a_power_cut_that_the_index_did_not_survive(box):
    box.fill()
    slices = read_in_batches(box.home(), "INBOX", AT_ONCE)
    for _ in range(3):
        next(slices)
    before = box.listed()
    for name in os.listdir(box.root):
        if name.startswith("mailserver-index"):
            os.unlink(os.path.join(box.root, name))
    assert before.items() <= box.finish().items()


# --- what others do between two slices


def in_between(box: Box, act: Callable[[], Any], after: int = 2) -> dict[int, str]:
    """Read it; `act` is done after so many slices. What is there at last."""
    for number, _progress in enumerate(read_in_batches(box.home(), "INBOX", AT_ONCE)):
        if number == after:
            act()
    return box.finish()


def test_a_delivery_comes_in_between(box):
    box.fill()
    account = box.account()

    def deliver() -> None:
        appended = account.append("INBOX", [stage(account, "new")])
        assert list(appended.uids) == [11]
        assert account.mailbox("INBOX").open_message(appended.uids[0]).read()

    names = sorted(box.on_disk())
    after = in_between(box, deliver)
    assert len(after) == FILES + 1
    assert [base for uid, base in after.items() if uid != 11] == names


def test_a_session_sets_flags_and_expunges_in_between(box):
    box.fill()
    account = box.account()

    def change() -> None:
        mailbox = account.mailbox("INBOX")
        mailbox.store_flags([1, 2], FlagChange.ADD, ["\\Deleted"])
        assert list(mailbox.expunge([1])) == [1]

    names = sorted(box.on_disk())
    after = in_between(box, change)
    assert after == dict(enumerate(names[1:], 2))
    assert account.mailbox("INBOX").status().deleted == 1


def test_another_process_does_the_rest_in_between(box):
    box.fill()
    names = sorted(box.on_disk())

    def look() -> None:
        account = box.account()
        assert account.status("INBOX").messages == FILES
        account.close()

    assert in_between(box, look) == dict(enumerate(names, 1))


def test_a_watcher_has_single_messages_taken_up_in_between(box):
    box.fill()
    name = max(os.listdir(os.path.join(box.root, "cur")))
    account = box.account()
    after = in_between(box, lambda: account.mailbox("INBOX").refresh([name]))
    assert after[11] == name.partition(":")[0]
    assert len(after) == FILES


@pytest.mark.parametrize("after", [0, 2, 4])
def test_a_foreign_program_removes_renames_and_delivers_in_between(box, after):
    box.fill()
    cur = os.path.join(box.root, "cur")
    names = sorted(os.listdir(cur))

    def interfere() -> None:
        os.unlink(os.path.join(cur, names[1]))
        os.unlink(os.path.join(cur, names[-1]))
        os.rename(os.path.join(cur, names[-2]), os.path.join(cur, names[-2].replace(":2,S", ":2,FS")))
        box.put("new", "1600009999.late")

    found = in_between(box, interfere, after)
    assert len(found) == FILES - 1
    assert found[max(found)] == "1600009999.late"
    kept = [name.partition(":")[0] for name in names if name not in {names[1], names[-1]}]
    assert [base for base in found.values() if base != "1600009999.late"] == kept


def test_dovecot_gives_uids_in_between(box):
    """It appends all that it sees to the list at once: its UIDs hold."""
    box.fill()
    given: dict[int, str] = {}

    def give() -> None:
        listed = box.listed()
        rest = sorted(box.on_disk() - set(listed.values()), reverse=True)
        given.update(enumerate(rest, max(listed) + 1))
        with open(os.path.join(box.root, "dovecot-uidlist"), "a") as stream:
            stream.write("".join(f"{uid} :{base}\n" for uid, base in given.items()))

    after = in_between(box, give)
    assert given
    assert given.items() <= after.items()


def test_the_mailbox_is_removed_in_between(box):
    box.fill()
    slices = read_in_batches(box.home(), "INBOX", AT_ONCE)
    next(slices)
    next(slices)
    account = box.account()
    account.rename("INBOX", "Moved")
    rest = list(slices)
    assert not rest or rest[-1][0] == rest[-1][1]
    account.close()
    other = box.account()
    assert other.status("Moved").messages == FILES
    assert other.status("INBOX").messages == 0


def test_a_full_disk_leaves_the_rest_unseen_until_there_is_room(box, monkeypatch):
    box.fill()
    append, calls = uidlist.append_lines, []

    def fail_third(path: str, data: bytes) -> Any:
        calls.append(path)
        if len(calls) >= 3:
            raise NoSpace
        return append(path, data)

    monkeypatch.setattr(uidlist, "append_lines", fail_third)
    told = list(read_in_batches(box.home(), "INBOX", AT_ONCE))
    assert told[-1] == (10, 23)
    assert len(box.indexed()) == 10
    monkeypatch.setattr(uidlist, "append_lines", append)
    assert box.finish() == dict(enumerate(sorted(box.on_disk()), 1))


def test_a_large_difference_is_read_in_slices_too(box):
    box.fill(5)
    account = box.account()
    mailbox = account.mailbox("INBOX")
    mailbox.refresh()
    modseq = mailbox.load().modseq
    known = set(box.on_disk())
    box.fill(FILES, 200)
    told = list(read_in_batches(box.home(), "INBOX", AT_ONCE))
    assert told[-1] == (28, 28)
    assert len(told) == 6
    after = box.finish()
    assert set(list(after.values())[:5]) == known
    assert list(after.values())[5:] == sorted(set(after.values()) - known)
    assert len(mailbox.changes_since(modseq).rows) == FILES


def test_two_take_turns(box):
    box.fill()
    first, second = ScanLock(box.home().paths("INBOX").new), ScanLock(box.home().paths("INBOX").new)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_the_lock_is_free_between_two_slices(box):
    box.fill()
    other = box.home()
    taken = 0
    for _ in read_in_batches(box.home(), "INBOX", AT_ONCE):
        with other.locked(), other.dotlocked([box.root]):
            taken += 1
    assert taken == -(-FILES // AT_ONCE) + 1, "before the first slice, and after each"


def test_a_mailbox_with_odd_names_is_no_exception(box):
    for name in ("x:2,", "1600000001.a:2,S", "99.b:2,", "1600000000.c:2,FS", "10000000000.d"):
        box.put("cur", name)
    for _ in read_in_batches(box.home(), "INBOX", 2):
        pass
    assert list(box.finish().values()) == ["x", "99.b", "1600000000.c", "1600000001.a", "10000000000.d"]


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("at_once", [None, 3])
def test_a_mailbox_that_dovecot_has_listed_keeps_its_uids(box, monkeypatch, odd, at_once):
    """Not in the order of the names, with lines of messages that are gone; what is not listed comes behind."""
    box.fill()
    box.fill(6, 100, "new")
    names = sorted(box.on_disk())
    listed = {uid: base for uid, base in enumerate(reversed(names[:-8]), 50) if uid % 5}
    lines = "".join(f"{uid} :{base}:2,\n" for uid, base in listed.items())
    with open(os.path.join(box.root, "dovecot-uidlist"), "w") as stream:
        stream.write("3 V1700000000 N90 G3085f01b7f11094c501100008c4a11c1\n49 :1500000000.gone\n" + lines)
    if odd:
        # The way of names that are out of the ordinary, which must lead to the same.
        monkeypatch.setattr("mailserver.store.maildir.sync.reconcile.first_scan", lambda _new, _cur: None)
    if at_once is None:
        account = box.account()
        account.status("INBOX")
        account.close()
    else:
        for _ in read_in_batches(box.home(), "INBOX", at_once):
            pass
    monkeypatch.undo()
    rest = [name for name in names if name not in listed.values()]
    account = box.account()
    assert account.status("INBOX").recent == 6
    account.close()
    assert box.finish() == {**listed, **dict(enumerate(rest, 90))}
