"""The Maildir store and the model side by side, with two sessions and a foreign program; their views must converge.

MAILSERVER_RUNS and MAILSERVER_STEPS scale it: 25 runs of 30 steps by default, 200 of 50 in CI, more in tests/soak.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mailserver.errors import MailboxChanged, MailError
from mailserver.message.render import summarise
from mailserver.store.columns import Columns
from mailserver.store.flags import FlagChange
from mailserver.store.index.sums import ACCOUNT, Sum
from mailserver.store.interfaces import Account, Mailbox
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.format import uidlist
from mailserver.store.maildir.home import quota_state, recovery
from mailserver.store.maildir.mailbox import expunge as expunging
from mailserver.store.memory import MemoryStore
from mailserver.store.time_slice import TimeSlice
from mailserver.store.view import View
from mailserver.types import UID, Quota
from tests.store.decisions import ALWAYS
from tests.store.disk import INDEX_FILES, USER, account_root, open_store
from tests.store.replay import Replay
from tests.store.samples import content, flags
from tests.store.workload import source, stage

RUNS = int(os.environ.get("MAILSERVER_RUNS", "25"))
STEPS = int(os.environ.get("MAILSERVER_STEPS", "30"))
NAMES = st.sampled_from(["INBOX", "INBOX", "INBOX", "a", "a", "b", "a/x", "c/d"])
PLACES = st.lists(st.integers(0, 7), max_size=4)
"""Messages by their place in the mailbox, so that the same ones are meant in both stores."""
WORDS = [f"word{number}" for number in range(40)]
FLAGS = st.lists(
    st.sampled_from(["\\Seen", "\\Flagged", "\\Deleted", "\\Answered", "work", "$Old", *WORDS[-3:]]), max_size=3
)


@pytest.fixture(autouse=True)
def _each_refusal_looks_at_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_state, "LOOK_EVERY", 0)


@pytest.fixture(autouse=True)
def _short_lists_are_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uidlists of so few messages, too, lose their dead lines."""
    monkeypatch.setattr(uidlist, "_FEW_LINES", 4)
    monkeypatch.setattr(expunging, "_LONG_LINE", 1)


class Session:
    """A client with a mailbox selected, on a handle of its own, as in another process."""

    def __init__(self, root: str) -> None:
        self.account = open_store(root).account(USER)
        self.select("INBOX")

    def select(self, name: str) -> None:
        self.mailbox = self.account.mailbox(name)
        self.mailbox.refresh()
        self.columns = Columns(self.mailbox.load())
        self.replay = Replay(View(self.columns, self.mailbox.claim_recent()))

    def sync(self, *, allow_expunge: bool) -> None:
        try:
            self.mailbox.refresh()
            self.columns.apply(self.mailbox.changes_since(self.columns.modseq))
        except MailboxChanged:
            self.select("INBOX")
        self.replay.sync(allow_expunge=allow_expunge)
        self.replay.check_numbers()


def picture(account: Account) -> dict[str, list[tuple[str, frozenset[str]]] | None]:
    """Names, and in each mailbox subjects with flags in the order of their UIDs."""
    boxes: dict[str, list[tuple[str, frozenset[str]]] | None] = {}
    for info in account.mailboxes():
        if not info.selectable:
            boxes[info.name] = None
            continue
        mailbox = account.mailbox(info.name)
        mailbox.refresh()
        boxes[info.name] = [
            (content(mailbox, uid).partition(b"Subject: ")[2].partition(b"\r")[0].decode(), frozenset(names))
            for uid, names in flags(mailbox).items()
        ]
    return boxes


def sizes(account: Account) -> dict[str, tuple[int, int]]:
    """Octets and number of the messages in each mailbox, as STATUS has them, once all are measured."""
    found = {}
    for info in account.mailboxes():
        if info.selectable:
            mailbox = account.mailbox(info.name)
            mailbox.refresh()
            assert mailbox.measure_rest(UID(1), TimeSlice(1 << 30, 60)) is None
            status = mailbox.status()
            assert status.unmeasured == 0
            found[info.name] = status.size, status.messages
    return found


def check_sums(account: MaildirAccount) -> None:
    """The sums that the index keeps are those of what it has."""
    index = account._home.index()
    known = {state.key: index.sums.of(state.key) for state in index.mailboxes.all()}
    for key, kept in known.items():
        assert kept is not None
        assert kept[:3] == index.messages.count_sizes(key)[:3]
    whole = index.sums.of(ACCOUNT)
    assert whole in {None, Sum(*map(sum, zip(*known.values(), strict=True)))}


def all_uids(account: Account) -> dict[str, list[int]]:
    """Of each mailbox, without looking for news."""
    names = [info.name for info in account.mailboxes() if info.selectable]
    return {name: [int(row.uid) for row in account.mailbox(name).load().rows] for name in names}


class Stores(RuleBasedStateMachine):
    """Each rule does the same to both; whatever is refused is refused by both in the same words."""

    @initialize(messages=st.integers(2, 6))
    def begin(self, messages: int) -> None:
        self.root = tempfile.mkdtemp(prefix="machine-")
        self.number = itertools.count()
        self.model = MemoryStore(summarise).account(USER)
        self.account = open_store(self.root).account(USER)
        self.create("a")
        for name in ("INBOX", "a"):
            self.append(name, ["\\Seen", "work"], messages)
            # In another order, so that the same keyword has a letter in one mailbox, and none in the other.
            self.store(name, [0], FlagChange.ADD, WORDS if name == "a" else WORDS[::-1])
        self.sessions = [Session(self.root), Session(self.root)]

    def both(self, act: Callable[[Account], object]) -> None:
        outcomes = []
        for account in (self.account, self.model):
            try:
                act(account)
                outcomes.append(None)
            except MailError as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1], f"the Maildir says {outcomes[0]}, the model {outcomes[1]}"

    def on_messages(self, name: str, places: list[int], act: Callable[[Mailbox, list[int]], object]) -> None:
        def run(account: Account) -> None:
            mailbox = account.mailbox(name)
            mailbox.refresh()
            uids = [row.uid for row in mailbox.load().rows]
            act(mailbox, [uids[place] for place in sorted(set(places)) if place < len(uids)])

        self.both(run)

    @rule(name=NAMES, names=FLAGS, count=st.integers(1, 3))
    def append(self, name: str, names: list[str], count: int) -> None:
        subjects = [f"m{next(self.number)}" for _ in range(count)]
        self.both(lambda account: account.append(name, [stage(account, word, *names) for word in subjects]))

    @rule(name=NAMES, publish=st.booleans())
    def prepare(self, name: str, publish: bool) -> None:
        subject = f"m{next(self.number)}"

        def run(account: Account) -> None:
            prepared = account.prepare(name, [stage(account, subject)])
            if publish:
                prepared.publish()
            prepared.abort()

        self.both(run)

    @rule(name=NAMES, token=st.sampled_from(["", ALWAYS, "undecided"]))
    def die_prepared(self, name: str, token: str) -> None:
        """What was prepared is published by the next holder of the lock, or dropped if it was not decided."""
        subject = f"m{next(self.number)}"
        self.both(lambda account: account.prepare(name, [stage(account, subject)], token))
        with mock.patch.object(recovery, "is_alive", return_value=False):
            self.account.set_subscribed("any", subscribed=False)
        self.model.recover(lambda asked: asked == ALWAYS)
        with contextlib.suppress(MailError):
            # It has its UID now, as in the model.
            self.account.mailbox(name).refresh()

    @rule(name=NAMES, places=PLACES, how=st.sampled_from(FlagChange), names=FLAGS)
    def store(self, name: str, places: list[int], how: FlagChange, names: list[str]) -> None:
        self.on_messages(name, places, lambda mailbox, uids: mailbox.store_flags(uids, how, names))

    @rule(name=NAMES, places=PLACES, only_deleted=st.booleans())
    def expunge(self, name: str, places: list[int], only_deleted: bool) -> None:
        self.on_messages(name, places, lambda mailbox, uids: mailbox.expunge(uids, only_deleted=only_deleted))

    @rule(name=NAMES, into=NAMES, places=PLACES)
    def copy(self, name: str, into: str, places: list[int]) -> None:
        self.on_messages(name, places, lambda mailbox, uids: mailbox.copy(uids, into))

    @rule(name=NAMES, into=NAMES, places=PLACES)
    def move(self, name: str, into: str, places: list[int]) -> None:
        self.on_messages(name, places, lambda mailbox, uids: mailbox.move(uids, into))

    @rule(name=NAMES, into=NAMES, place=st.integers(0, 3), names=FLAGS)
    def replace(self, name: str, into: str, place: int, names: list[str]) -> None:
        subject = f"m{next(self.number)}"

        def run(account: Account) -> None:
            mailbox = account.mailbox(name)
            mailbox.refresh()
            uids = [row.uid for row in mailbox.load().rows]
            new = stage(account, subject, *names)
            try:
                mailbox.replace(uids[place] if place < len(uids) else UID(9999), into, new)
            finally:
                new.staged.abort()

        self.both(run)

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        self.both(lambda account: account.create(name))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.both(lambda account: account.delete(name))

    @rule(name=NAMES, new=NAMES)
    def rename(self, name: str, new: str) -> None:
        self.both(lambda account: account.rename(name, new))

    @rule(name=NAMES)
    def foreign_delivery(self, name: str) -> None:
        """A delivery agent that knows nothing of us."""
        subject = f"m{next(self.number)}"
        with contextlib.suppress(MailError):
            # Taken up now, so that the order of UIDs is the model's.
            self.account.mailbox(name).refresh()
            self.put(name, subject)
            self.account.mailbox(name).refresh()
            self.model.append(name, [stage(self.model, subject)], beyond_quota=True)

    def put(self, name: str, subject: str) -> None:
        """A file in new/ of the mailbox."""
        new = next(path for path in self.account.mailbox(name).watched_paths if os.path.basename(path) == "new")
        place = os.path.join(os.path.dirname(new), "tmp", f"1.{subject}.host")
        with open(place, "wb") as stream:
            stream.write(source(subject))
        os.rename(place, os.path.join(new, os.path.basename(place)))

    @rule(name=NAMES, place=st.integers(0, 3))
    def foreign_flag(self, name: str, place: int) -> None:
        """Another program marks a message read, by renaming its file."""

        def mark(directory: str, file: str) -> None:
            base, _, info = file.partition(":2,")
            letters, comma, rest = info.partition(",")
            cur = os.path.join(os.path.dirname(directory), "cur")
            marked = f"{base}:2,{''.join(sorted({*letters, 'S'}))}{comma}{rest}"
            os.rename(os.path.join(directory, file), os.path.join(cur, marked))

        self.foreign(name, place, mark, lambda mailbox, uids: mailbox.store_flags(uids, FlagChange.ADD, ["\\Seen"]))

    @rule(name=NAMES, place=st.integers(0, 3))
    def foreign_removal(self, name: str, place: int) -> None:
        """Another program removes a message's file."""
        self.foreign(
            name,
            place,
            lambda directory, file: os.unlink(os.path.join(directory, file)),
            lambda mailbox, uids: mailbox.expunge(uids, only_deleted=False),
        )

    def foreign(
        self,
        name: str,
        place: int,
        on_disk: Callable[[str, str], None],
        in_model: Callable[[Mailbox, list[int]], object],
    ) -> None:
        """Do something to the files of a message, and the same to it (and its copies there) in the model."""
        with contextlib.suppress(MailError):
            mailbox = self.account.mailbox(name)
            mailbox.refresh()
            uids = [row.uid for row in mailbox.load().rows]
            if place >= len(uids):
                return
            data = content(mailbox, uids[place])
            for directory in mailbox.watched_paths:
                for file in os.listdir(directory):
                    with open(os.path.join(directory, file), "rb") as stream:
                        same = stream.read() == data
                    if same:
                        on_disk(directory, file)
            theirs = self.model.mailbox(name)
            in_model(theirs, [uid for uid in theirs.all_uids() if content(theirs, uid) == data])

    @rule(number=st.integers(0, 1), allow_expunge=st.booleans())
    def sync(self, number: int, allow_expunge: bool) -> None:
        self.sessions[number].sync(allow_expunge=allow_expunge)

    @rule(number=st.integers(0, 1), name=NAMES)
    def select(self, number: int, name: str) -> None:
        with contextlib.suppress(MailError):
            self.sessions[number].select(name)

    @rule(lose_index=st.booleans(), mail_for=st.none() | NAMES)
    def restart(self, lose_index: bool, mail_for: str | None) -> None:
        """With mail of a foreign program that came when the server was down."""
        self.compare()
        before = all_uids(self.account)
        if mail_for in before:
            subject = f"m{next(self.number)}"
            self.put(mail_for, subject)
            self.model.append(mail_for, [stage(self.model, subject)], beyond_quota=True)
        self.account.close()
        for session in self.sessions:
            session.account.close()
        if lose_index:
            for name in INDEX_FILES:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(account_root(self.root), name))
        self.account = open_store(self.root).account(USER)
        self.account.quota = self.model.quota
        self.sessions = [Session(self.root), Session(self.root)]
        self.compare()
        after = all_uids(self.account)
        assert {name: uids[: len(before[name])] for name, uids in after.items()} == before

    @rule()
    def compare(self) -> None:
        assert picture(self.account) == picture(self.model)
        check_sums(self.account)

    @rule(messages=st.none() | st.integers(0, 25), mailboxes=st.none() | st.integers(1, 5))
    def limit(self, messages: int | None, mailboxes: int | None) -> None:
        """Octets are not limited here: those of foreign messages are estimated until they are read."""
        self.account.quota = self.model.quota = Quota(None, messages, mailboxes)

    @rule()
    def measure(self) -> None:
        assert sizes(self.account) == sizes(self.model)
        check_sums(self.account)
        assert self.account.usage() == self.model.usage()

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        try:
            self.compare()
            for session in self.sessions:
                session.sync(allow_expunge=True)
                session.replay.check_equal(session.account.mailbox(session.mailbox.name))
        finally:
            for session in self.sessions:
                session.account.close()
            self.account.close()
            shutil.rmtree(self.root)


TestStores = Stores.TestCase
TestStores.settings = settings(
    max_examples=RUNS, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
)
