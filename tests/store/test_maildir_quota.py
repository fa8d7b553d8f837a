"""The quota of a Maildir: beside other processes and programs, after the loss of the index, and at what cost."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.errors import OverQuota
from mailserver.store.index.sums import ACCOUNT
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.home import quota_state
from mailserver.store.maildir.sync import usage
from mailserver.store.receiving import Appended, Delivery
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, Quota, Usage
from tests.store.disk import INDEX_FILES, USER, account_root, open_store
from tests.store.samples import message, staged, uids

SIZE = len(message("a"))
FOREIGN = b"Subject: x\n\nsome text\n"
AS_SENT = len(FOREIGN) + FOREIGN.count(b"\n")


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def account(root: str) -> Iterator[MaildirAccount]:
    account = opened(root)
    yield account
    account.close()


def opened(root: str) -> MaildirAccount:
    return open_store(root, quota_warnings=(80, 95, 100)).account(USER)


def append(account: MaildirAccount, count: int = 1, name: str = "INBOX") -> None:
    account.append(name, [staged(account, message("a")) for _ in range(count)])


def put_foreign(account: MaildirAccount, name: str, directory: str = "", data: bytes = FOREIGN) -> None:
    """A delivery by another program."""
    new = Path(account.root, directory, "new")
    for part in ("new", "cur", "tmp"):
        (new.parent / part).mkdir(parents=True, exist_ok=True)
    (new / name).write_bytes(data)


def lose_index(root: str, account: MaildirAccount) -> MaildirAccount:
    account.close()
    for name in INDEX_FILES:
        Path(account_root(root), name).unlink(missing_ok=True)
    return opened(root)


def test_foreign_mail_counts_and_is_never_refused(account: MaildirAccount) -> None:
    account.quota = Quota(storage=2 * SIZE)
    append(account)
    for number in range(40):
        put_foreign(account, f"17000000{number:02}.x.host")
    assert account.usage() == Usage(SIZE + 40 * len(FOREIGN), 41, 1)
    assert len(uids(account.mailbox("INBOX"))) == 41
    with pytest.raises(OverQuota):
        append(account)


def test_estimates_become_sizes_once_messages_are_read(account: MaildirAccount) -> None:
    for number in range(3):
        put_foreign(account, f"170000000{number}.x.host")
    assert account.usage().storage == 3 * len(FOREIGN)
    inbox = account.mailbox("INBOX")
    inbox.summaries([UID(1)])
    assert account.usage().storage == 2 * len(FOREIGN) + AS_SENT
    inbox.expunge([UID(2)], only_deleted=False)
    assert account.usage().storage == len(FOREIGN) + AS_SENT
    put_foreign(account, "1700000009.x.host")
    assert inbox.measure_rest(UID(1), TimeSlice(1 << 20)) is None
    # The last one has not been noticed before.
    assert account.usage().storage == 2 * AS_SENT + len(FOREIGN)
    assert inbox.measure_rest(UID(1), TimeSlice(1 << 20)) is None
    assert account.usage() == Usage(3 * AS_SENT, 3, 1)


def test_the_sizes_in_a_name_are_used_for_estimates(account: MaildirAccount) -> None:
    # Equal sizes are not believed for what is sent, as a name may have been copied; for a quota they do.
    put_foreign(account, "1700000001.x.host,S=700,W=700")
    put_foreign(account, "1700000002.x.host,S=500")
    put_foreign(account, "1700000003.x.host,S=600,W=640")
    assert account.usage() == Usage(700 + 500 + 640, 3, 1)


def test_mailboxes_of_another_program_count_once_they_are_noticed(account: MaildirAccount) -> None:
    append(account)
    assert account.usage() == Usage(SIZE, 1, 1)
    put_foreign(account, "1700000001.x.host,S=500,W=520", ".Foreign")
    assert account.usage() == Usage(SIZE + 520, 2, 2)
    os.rename(os.path.join(account.root, ".Foreign"), os.path.join(account.root, "mailserver-deleted.x"))
    assert account.usage() == Usage(SIZE, 1, 1)


def test_the_loss_of_the_index_changes_nothing(root: str, account: MaildirAccount) -> None:
    account.create("a")
    append(account, 2)
    append(account, 3, "a")
    put_foreign(account, "1700000001.x.host")
    before = account.usage()
    again = lose_index(root, account)
    again.quota = Quota(messages=6)
    with pytest.raises(OverQuota):
        append(again)
    assert again.usage() == before
    again.close()


def test_a_recount_mends_sums_that_are_wrong(account: MaildirAccount) -> None:
    append(account, 2)
    right = account.usage()
    index = account._home.index()
    [state] = index.mailboxes.all()
    with index.transaction():
        index.sums.change(state.key, 4, 1000)
    wrong = Usage(right.storage + 1000, 6, 1)
    assert account.usage() == wrong
    assert account.recount() == (wrong, right)
    assert account.usage() == right


def test_a_mailbox_that_cannot_be_counted_refuses_no_mail_elsewhere(account: MaildirAccount) -> None:
    put_foreign(account, "1700000001.x.host", ".Broken")
    os.mkdir(os.path.join(account.root, ".Broken", "dovecot-uidlist"))
    account.quota = Quota(messages=5)
    append(account, 2)
    assert account.usage() == Usage(2 * SIZE, 2, 2)


def test_warnings_are_remembered_without_the_index(root: str, account: MaildirAccount) -> None:
    account.quota = Quota(messages=10)
    append(account, 9)
    assert account.take_quota_warning() is not None
    again = lose_index(root, account)
    again.quota = Quota(messages=10)
    again.mailbox("INBOX").copy([UID(1)], "INBOX")
    due = again.take_quota_warning()
    assert due is not None
    assert due.threshold == 100
    assert Path(again.root, quota_state.FILE_NAME).read_bytes() == b"100\n"
    again.mailbox("INBOX").expunge([UID(uid) for uid in range(1, 9)], only_deleted=False)
    append(again)
    assert not Path(again.root, quota_state.FILE_NAME).exists()
    again.close()


def test_a_warning_that_cannot_be_noted_refuses_no_mail(account: MaildirAccount) -> None:
    os.mkdir(os.path.join(account.root, quota_state.FILE_NAME))
    account.quota = Quota(messages=10)
    append(account, 9)
    assert account.take_quota_warning() is not None


def test_racing_processes_never_exceed_the_quota(root: str, account: MaildirAccount) -> None:
    """Deliveries, appended messages and copies, each with an account object of its own, until nothing fits."""
    account.create("a")
    append(account)
    room = 30
    failures: list[BaseException] = []

    def append_some(other: MaildirAccount) -> None:
        append(other, 2, "a")

    def deliver(other: MaildirAccount) -> None:
        new = [Delivery("INBOX", [staged(other, message("a"))]) for _ in range(3)]
        for outcome in other.deliver(new):
            if isinstance(outcome, Exception):
                raise outcome

    def copy(other: MaildirAccount) -> None:
        other.mailbox("INBOX").copy([UID(1)], "a")

    def fill(add: Callable[[MaildirAccount], None]) -> None:
        other = opened(root)
        other.quota = Quota(storage=room * SIZE)
        try:
            for _ in range(room):
                add(other)
            failures.append(AssertionError("it was never refused"))
        except OverQuota:
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            other.close()

    threads = [threading.Thread(target=fill, args=(add,)) for add in (append_some, deliver, copy, deliver)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    found = account.usage()
    assert room - 2 < found.messages <= room
    assert found.storage == found.messages * SIZE


def test_a_check_reads_one_row_however_much_mail_there_is(account: MaildirAccount) -> None:
    def statements(messages: int, mailboxes: int) -> int:
        for number in range(mailboxes):
            account.create(f"{messages}-{number}")
        append(account, messages)
        account.quota = Quota(storage=1 << 40)
        append(account)
        seen: list[str] = []
        connection = account._home.index()._connection
        connection.exec_trace = lambda _cursor, statement, _bindings: bool(seen.append(statement)) or True
        try:
            append(account)
        finally:
            connection.exec_trace = None
        return len(seen)

    assert statements(1, 1) == statements(50, 40)


def test_without_limits_nothing_is_counted(account: MaildirAccount) -> None:
    account.quota = Quota(mailboxes=5)
    append(account)
    assert account._home.index().sums.of(ACCOUNT) is None


ADDITIONS: list[Callable[[MaildirAccount], object]] = [
    lambda account: account.append("INBOX", [staged(account, message("new"))]),
    lambda account: account.prepare("INBOX", [staged(account, message("new"))]).abort(),
    lambda account: refused_in(account.deliver([Delivery("INBOX", [staged(account, message("new"))])])),
    lambda account: account.mailbox("INBOX").copy([1], "INBOX"),
    lambda account: account.check_quota(1, 0),
]


def refused_in(outcomes: list[Appended | Exception]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


@pytest.mark.parametrize("add", ADDITIONS)
def test_mail_that_another_program_removed_does_not_count(
    account: MaildirAccount, add: Callable[[MaildirAccount], object]
) -> None:
    account.create("a")
    append(account)
    append(account, 2, "a")
    account.quota = Quota(None, 3)
    with pytest.raises(OverQuota):
        account.check_quota(1, 0)
    account._home.quota._looked = -math.inf
    gone = next(Path(account.root, ".a").glob("[nc]*/*"))
    gone.unlink()
    add(account)


def test_of_several_deliveries_each_that_fits_after_removals_is_made(account: MaildirAccount) -> None:
    append(account, 3)
    account.quota = Quota(None, 3)
    next(Path(account.root).glob("[nc]*/1*")).unlink()
    first, second = account.deliver([Delivery("INBOX", [staged(account, message(word))]) for word in "bc"])
    assert isinstance(first, Appended)
    assert isinstance(second, OverQuota)


def test_refusals_in_a_row_read_the_mailboxes_once(account: MaildirAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    account.create("a")
    append(account, 3)
    account.quota = Quota(None, 3)
    monkeypatch.setattr(quota_state, "LOOK_EVERY", 3600)
    read: list[str] = []
    monkeypatch.setattr(usage, "reconcile", lambda _home, name: read.append(name))
    for _ in range(5):
        with pytest.raises(OverQuota):
            append(account)
    assert sorted(read) == ["INBOX", "a"]


def test_no_warning_for_what_is_not_refused(account: MaildirAccount) -> None:
    append(account, 3)
    account.quota = Quota(None, 3)
    for _ in range(2):
        next(Path(account.root).glob("[nc]*/1*")).unlink()
    append(account)
    assert account.take_quota_warning() is None
