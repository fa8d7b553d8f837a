"""Copies of one message in several accounts: all or none, by one decision, whatever fails or dies in between."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import pytest

from mailserver.auth.interfaces import User
from mailserver.errors import InUse, MailError, NoSpace, StorageFailure, StoreUnavailable
from mailserver.filing import local_copies
from mailserver.filing.interfaces import MessageRejected, Plan
from mailserver.filing.local_copies import Filing, LocalCopies
from mailserver.filing.local_copy import LocalCopy
from mailserver.filing.stored_message import StoredMessage
from mailserver.queue.interfaces import Content
from mailserver.queue.tokens import made_at
from mailserver.store.live import LiveAccounts
from mailserver.types import Quota
from tests.fakes import DirectRunner, run_now
from tests.filing.fakes import FakeDecisions, FakeFiler
from tests.smtp.world import RecordingStore

USERS = ("anna@example.test", "bert@example.test", "carl@example.test")
ALIAS = "all@example.test"
TEXT = b"Subject: x\r\n\r\ntext\r\n"
MESSAGE = Content(TEXT)
TRACE = b"Return-Path: <a@example.net>\r\nDelivered-To: all@example.test\r\nReceived: x\r\n"
ONE = frozenset({"\\Flagged"})


class Site:
    """Three accounts, and what a delivery did."""

    def __init__(self, decisions: FakeDecisions | None = None, plan: Plan | None = None) -> None:
        self.store = RecordingStore()
        self.accounts = LiveAccounts(self.store, DirectRunner)
        self.decisions = decisions
        self.filer = None if plan is None else FakeFiler(plan)
        more: dict[str, Any] = {} if self.filer is None else {"filer": self.filer}
        self.filing = Filing(self.accounts, self.quota_of, decisions=decisions, **more)
        self.logged: list[tuple[str, dict[str, object]]] = []
        self.bugs: list[str] = []
        self.quota = Quota()

    def quota_of(self, _user: User) -> Quota:
        return self.quota

    def log(self, event: str, **fields: object) -> None:
        self.logged.append((event, fields))

    def bug(self, doing: str) -> None:
        self.bugs.append(doing)

    def begin(self, *users: str) -> LocalCopies:
        copies = LocalCopies(self, self.filing, "a@example.net")
        for user in users or USERS:
            run_now(copies.add(User(user), "", ALIAS, b"Received: x\r\n"))
        return copies

    def file(self, *users: str, content: Content = MESSAGE) -> None:
        copies = self.begin(*users)
        try:
            run_now(copies.file(content))
        finally:
            run_now(copies.close())

    def counts(self, folder: str = "INBOX") -> list[int]:
        return [len(self.store.account(user).mailbox(folder).load().rows) for user in USERS]

    def recover(self) -> None:
        """The process is dead, and others open the accounts."""
        for user in USERS:
            self.store.account(user).recover(None if self.decisions is None else self.decisions.decided)

    @property
    def waiting(self) -> int:
        return sum(each.waits for each in self.store.prepared)

    def check_clean(self) -> None:
        assert self.waiting == 0
        assert [staged for staged in self.store.staged if staged.data is not None] == []
        assert [live for live in self.accounts._accounts.values() if live.users] == []


def test_one_copy_needs_no_decision() -> None:
    site = Site(FakeDecisions(AssertionError("nobody decides about one copy")))
    site.file(USERS[0])
    assert site.counts() == [1, 0, 0]
    assert site.store.prepared == []
    mailbox = site.store.account(USERS[0]).mailbox("INBOX")
    assert mailbox.open_message(mailbox.load().rows[0].uid).read() == TRACE + TEXT
    site.check_clean()


def test_several_copies_wait_for_one_decision_which_is_forgotten_then() -> None:
    decisions = FakeDecisions()
    site = Site(decisions)
    copies = site.begin()
    run_now(copies.prepare(MESSAGE))
    assert site.counts() == [0, 0, 0]
    [token] = {each.token for each in site.store.prepared}
    assert made_at(token) is not None
    run_now(copies.decide())
    assert decisions.committed == [token]
    assert site.counts() == [0, 0, 0]
    run_now(copies.publish())
    assert site.counts() == [1, 1, 1]
    assert decisions.forgotten == [token]
    run_now(copies.close())
    assert site.counts() == [1, 1, 1]
    site.check_clean()


def test_a_token_is_made_when_the_table_is_there_and_nothing_is_prepared_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decisions = FakeDecisions()
    site = Site(decisions)
    now = [1000.0]
    monkeypatch.setattr(local_copies.time, "time", lambda: now[0])
    asked: list[int] = []

    def slow() -> None:
        asked.append(1)
        now[0] += 50
        if len(asked) == 2:
            raise StorageFailure("no table")
        decisions.is_ready = True

    monkeypatch.setattr(decisions, "get_ready", slow)
    site.file()
    [token] = decisions.forgotten
    # A table that was made meanwhile is not younger.
    assert made_at(token) == 1050
    prepared = len(site.store.prepared)
    with pytest.raises(StorageFailure):
        site.file()
    assert (len(asked), len(site.store.prepared)) == (2, prepared)
    site.check_clean()


def test_each_message_has_a_token_of_its_own() -> None:
    decisions = FakeDecisions()
    site = Site(decisions)
    site.file()
    site.file()
    assert len(set(decisions.forgotten)) == 2
    assert site.counts() == [2, 2, 2]


@pytest.mark.parametrize(
    ("stage", "there"),
    [("preparing", [0, 0, 0]), ("prepared", [0, 0, 0]), ("decided", [1, 1, 1]), ("publishing", [1, 1, 1])],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_process_that_dies_leaves_all_copies_or_none(
    monkeypatch: pytest.MonkeyPatch, stage: str, there: list[int]
) -> None:
    class Killed(BaseException):
        pass

    site = Site(FakeDecisions())
    copies = site.begin()
    method = {"preparing": "prepare", "publishing": "publish"}.get(stage)
    if method:
        original = getattr(LocalCopy, method)
        done = []

        async def dies(copy: LocalCopy, *arguments: Any) -> None:
            if len(done) == 2:
                raise Killed
            done.append(copy)
            await original(copy, *arguments)

        monkeypatch.setattr(LocalCopy, method, dies)
    try:
        run_now(copies.prepare(MESSAGE))
        if stage != "prepared":
            run_now(copies.decide())
            if stage != "decided":
                run_now(copies.publish())
    except Killed:
        assert method
    site.recover()
    assert site.counts() == there
    assert site.waiting == 0


@pytest.mark.parametrize(
    "error", [NoSpace(), StorageFailure("locked"), ValueError("bug")], ids=["space", "lock", "bug"]
)
def test_a_decision_that_fails_drops_all(error: Exception) -> None:
    site = Site(FakeDecisions(error))
    with pytest.raises(type(error)):
        site.file()
    assert site.counts() == [0, 0, 0]
    site.check_clean()
    site.recover()
    assert site.counts() == [0, 0, 0]


def test_one_that_is_full_drops_all() -> None:
    decisions = FakeDecisions()
    site = Site(decisions)
    site.store.account(USERS[1]).quota = site.quota = Quota(messages=0)
    with pytest.raises(MailError):
        site.file()
    assert site.counts() == [0, 0, 0]
    assert decisions.committed == []
    site.check_clean()


def test_a_copy_that_cannot_be_published_yet_keeps_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = FakeDecisions()
    site = Site(decisions)
    original = LocalCopy.publish

    async def busy(copy: LocalCopy) -> None:
        if copy._live.account.user == USERS[1]:
            raise InUse
        await original(copy)

    monkeypatch.setattr(LocalCopy, "publish", busy)
    site.file()
    assert site.counts() == [1, 0, 1]
    assert [event for event, _fields in site.logged] == ["publish-delayed"]
    assert len(decisions.committed) == 1
    site.recover()
    assert site.counts() == [1, 1, 1]


def test_a_decision_that_is_taken_back_is_forgotten_before_the_copies_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next hop has refused the message, and the process dies between two copies that it drops."""

    class Killed(BaseException):
        pass

    decisions = FakeDecisions()
    site = Site(decisions)
    copies = site.begin()
    run_now(copies.prepare(MESSAGE))
    run_now(copies.decide())
    original = LocalCopy.abort
    dropped: list[LocalCopy] = []

    async def dies(copy: LocalCopy) -> None:
        if dropped:
            raise Killed
        dropped.append(copy)
        await original(copy)

    monkeypatch.setattr(LocalCopy, "abort", dies)
    with pytest.raises(Killed):
        run_now(copies.close())
    site.recover()
    assert site.counts() == [0, 0, 0]


def test_a_row_that_cannot_be_forgotten_hinders_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = FakeDecisions()
    site = Site(decisions)

    def fail(_tokens: object) -> None:
        raise StorageFailure("locked")

    monkeypatch.setattr(decisions, "forget", fail)
    site.file()
    assert site.counts() == [1, 1, 1]
    assert [event for event, _fields in site.logged] == ["decision-kept"]
    site.check_clean()


def test_without_a_table_copies_are_prepared_as_before() -> None:
    site = Site()
    site.file()
    assert site.counts() == [1, 1, 1]
    assert {each.token for each in site.store.prepared} == {""}


# --- plans


def test_a_filer_sees_the_message_as_it_is_stored() -> None:
    site = Site(plan=Plan((("INBOX", ONE),)))
    site.file(USERS[0])
    assert site.filer is not None
    [(recipient, message)] = site.filer.asked
    assert (recipient.account.user, recipient.address, recipient.sender) == (USERS[0], ALIAS, "a@example.net")
    assert message == TRACE + TEXT
    assert [row.flags for row in site.store.account(USERS[0]).mailbox("INBOX").load().rows] != [0]


def test_several_files_of_one_user_wait_for_one_decision() -> None:
    decisions = FakeDecisions()
    site = Site(decisions, Plan((("INBOX", frozenset()), ("Work", ONE))))
    site.store.account(USERS[0]).create("Work")
    site.file(USERS[0])
    assert (site.counts()[0], len(site.store.account(USERS[0]).mailbox("Work").load().rows)) == (1, 1)
    [token] = {each.token for each in site.store.prepared}
    assert decisions.forgotten == [token]
    site.check_clean()


def test_a_plan_that_fails_in_part_files_nothing() -> None:
    site = Site(FakeDecisions(), Plan((("INBOX", frozenset()), ("none", ONE))))
    with pytest.raises(MailError):
        site.file(USERS[0])
    assert site.counts() == [0, 0, 0]
    site.check_clean()


def test_what_is_discarded_is_accepted_and_not_kept() -> None:
    site = Site(FakeDecisions(), Plan(discard=True))
    site.file()
    assert site.counts() == [0, 0, 0]
    site.check_clean()


@pytest.mark.parametrize(
    ("reason", "text"),
    [("no more\r\n250 ok", "no more 250 ok"), ("geh weg, Jürgen", "geh weg, J?rgen"), ("\x00\x1b[31m", "[31m")],
    ids=["lines", "umlaut", "controls"],
)
def test_a_refusal_is_one_line_of_ascii(reason: str, text: str) -> None:
    site = Site(FakeDecisions(), Plan(reject=reason))
    with pytest.raises(MessageRejected) as caught:
        site.file()
    assert caught.value.sentence == text
    assert caught.value.smtp_reply == (550, "5.7.1")
    site.check_clean()


def test_nothing_is_redirected_yet_and_so_it_is_refused_for_now() -> None:
    site = Site(FakeDecisions(), Plan((("INBOX", ONE),), redirects=("x@example.net",)))
    with pytest.raises(StoreUnavailable):
        site.file(USERS[0])
    assert site.counts() == [0, 0, 0]


def test_no_plan_loses_a_message() -> None:
    with pytest.raises(ValueError, match="lose"):
        Plan()


def test_a_message_in_a_file_is_read_and_stored_whole() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + TEXT + b"behind")
        file.flush()
        content = Content(b"Start: x\r\n", (file.fileno(), 6, len(TEXT)))
        whole = b"P: y\r\nStart: x\r\n" + TEXT
        with StoredMessage(b"P: y\r\n", content) as message:
            assert message.size == len(whole)
            for offset in range(len(whole) + 3):
                for count in (0, 1, 7, 100):
                    assert message.read(offset, count) == whole[offset : offset + count]
        site = Site(plan=Plan((("INBOX", frozenset()), ("Work", frozenset()))))
        site.store.account(USERS[0]).create("Work")
        site.file(USERS[0], content=content)
    for folder in ("INBOX", "Work"):
        mailbox = site.store.account(USERS[0]).mailbox(folder)
        assert mailbox.open_message(mailbox.load().rows[0].uid).read() == TRACE + b"Start: x\r\n" + TEXT
    assert len(os.listdir("/proc/self/fd")) == before
