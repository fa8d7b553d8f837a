"""A session's view: what it tells must let a client keep the right picture, whatever happens in between."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mailserver.store import columns as columns_module
from mailserver.store.columns import Columns
from mailserver.store.flags import FlagChange
from mailserver.store.memory import MemoryMailbox, MemoryStore
from mailserver.store.view import View
from tests.store.replay import Replay
from tests.store.samples import put


def never(_source: bytes) -> object:
    raise AssertionError("no summary is needed here")


def open_mailbox(messages: int = 0) -> MemoryMailbox:
    account = MemoryStore(never).account("anna@example.test")
    for _ in range(messages):
        put(account)
    return account.mailbox("INBOX")


def fill(mailbox: MemoryMailbox, count: int = 1) -> None:
    mailbox.add([(b"x\r\n", (), 0)] * count)


class Scene:
    """A mailbox, its columns, and views of it."""

    def __init__(self, messages: int) -> None:
        self.mailbox = open_mailbox(messages)
        self.columns = Columns(self.mailbox.load())

    def view(self) -> View:
        return View(self.columns, self.mailbox.claim_recent())

    def catch_up(self) -> None:
        self.columns.apply(self.mailbox.changes_since(self.columns.modseq))

    def expunge(self, *uids: int) -> None:
        self.mailbox.expunge(uids, only_deleted=False)
        self.catch_up()

    def add(self, count: int = 1) -> None:
        fill(self.mailbox, count)
        self.catch_up()

    def flag(self, *uids: int, flags: tuple[str, ...] = ("\\Flagged",)) -> None:
        self.mailbox.store_flags(uids, FlagChange.ADD, flags)
        self.catch_up()


def test_sequence_numbers():
    scene = Scene(3)
    scene.expunge(2)
    view = scene.view()
    assert [view.uid(seq) for seq in (0, 1, 2, 3)] == [None, 1, 3, None]
    assert [view.seq(uid) for uid in (1, 2, 3, 4)] == [1, None, 2, None]


def test_nothing_moves_before_sync():
    scene = Scene(3)
    view = scene.view()
    scene.expunge(1)
    scene.add()
    assert [view.uid(seq) for seq in range(1, 5)] == [1, 2, 3, None]
    assert view.behind()


def test_an_expunge_that_may_not_be_told_then_new_mail_then_another_expunge():
    """RFC 3501 7.4.1: the numbers stay until EXPUNGE may be told; EXISTS counts the untold ones."""
    scene = Scene(3)
    view = scene.view()
    scene.expunge(2)
    assert not view.sync(allow_expunge=False)
    assert view.behind()
    scene.add()
    assert view.sync(allow_expunge=False).exists == 4
    assert [view.uid(seq) for seq in range(1, 5)] == [1, 2, 3, 4]
    scene.expunge(1)
    scene.add()
    assert view.sync(allow_expunge=False).exists == 5
    told = view.sync(allow_expunge=True)
    assert list(told.expunged) == [(2, 2), (1, 1)]
    assert told.exists is None
    assert [view.uid(seq) for seq in range(1, 4)] == [3, 4, 5]
    assert view.is_synced
    assert not view.behind()


def test_a_message_that_came_and_went_between_is_never_told():
    scene = Scene(1)
    view = scene.view()
    scene.add()
    scene.expunge(2)
    told = view.sync(allow_expunge=True)
    assert not told
    assert not view.behind()
    assert view.is_synced


def test_all_gone_and_new_ones_at_once():
    scene = Scene(2)
    view = scene.view()
    scene.expunge(1, 2)
    scene.add(3)
    told = view.sync(allow_expunge=True)
    assert list(told.expunged) == [(2, 2), (1, 1)]
    assert told.exists == 3
    assert [view.uid(seq) for seq in range(1, 4)] == [3, 4, 5]


def test_flags_are_told_once_with_the_number_after_the_expunges():
    scene = Scene(3)
    view = scene.view()
    scene.flag(3)
    scene.flag(3, flags=("\\Seen",))
    scene.expunge(1)
    assert list(view.sync(allow_expunge=True).flags) == [(2, 3)]
    assert not view.sync(allow_expunge=True)


def test_flags_of_a_new_message_are_not_told_until_the_client_knows_it():
    scene = Scene(2)
    view = scene.view()
    scene.add(2)
    scene.flag(2, 3, 4)
    moved = view.sync(allow_expunge=False, below=4)
    assert (moved.exists, moved.flags) == (3, [(2, 2)])
    scene.flag(3, 4, flags=("\\Seen",))
    moved = view.sync(allow_expunge=False)
    assert (moved.exists, moved.flags) == (4, [(3, 3)])
    scene.flag(4, flags=("\\Draft",))
    assert view.sync(allow_expunge=False).flags == [(4, 4)]


def test_flags_of_a_message_gone_are_not_told():
    scene = Scene(2)
    view = scene.view()
    scene.flag(1)
    scene.expunge(1)
    told = view.sync(allow_expunge=False)
    assert not told.flags
    assert list(view.sync(allow_expunge=True).expunged) == [(1, 1)]


def test_keywords_are_told_once():
    scene = Scene(1)
    view = scene.view()
    scene.flag(1, flags=("work",))
    assert view.sync(allow_expunge=False).keywords == ("work",)
    assert view.sync(allow_expunge=False).keywords is None


def own_store(scene: Scene, view: View, *uids: int, flags: tuple[str, ...] = ("\\Seen",)) -> None:
    """What LiveMailbox.change does, and then STORE .SILENT."""
    scene.catch_up()
    scene.columns.begin_own()
    scene.flag(*uids, flags=flags)
    view.silence(uids)


def test_a_silent_store_is_not_told_to_its_session_but_to_others():
    scene = Scene(2)
    view, other = scene.view(), scene.view()
    own_store(scene, view, 1)
    assert not view.sync(allow_expunge=True)
    assert list(other.sync(allow_expunge=True).flags) == [(1, 1)]


def test_what_others_do_after_a_silent_store_is_told():
    scene = Scene(2)
    view = scene.view()
    own_store(scene, view, 1, 2)
    scene.flag(1)
    assert list(view.sync(allow_expunge=True).flags) == [(1, 1)]


def test_what_others_did_before_a_silent_store_is_told():
    """RFC 3501 6.4.6: a change from an external source is told regardless of .SILENT."""
    scene = Scene(2)
    view = scene.view()
    scene.mailbox.store_flags([1], FlagChange.ADD, ["\\Flagged"])
    own_store(scene, view, 1, 2)
    assert list(view.sync(allow_expunge=True).flags) == [(1, 1)]


def test_a_view_behind_the_trimmed_log_rereads_the_flags(monkeypatch):
    monkeypatch.setattr(columns_module, "LOG_LIMIT", 2)
    scene = Scene(2)
    view, fresh = scene.view(), scene.view()
    for _ in range(10):
        scene.flag(1)
        scene.mailbox.store_flags([1], FlagChange.REMOVE, ["\\Flagged"])
        scene.catch_up()
        fresh.sync(allow_expunge=True)
    assert scene.columns.changed_start > 0
    scene.flag(2)
    assert {uid for _seq, uid in view.sync(allow_expunge=True).flags} == {1, 2}
    assert [uid for _seq, uid in fresh.sync(allow_expunge=True).flags] == [2]


def test_recent_counts_from_what_was_claimed():
    scene = Scene(2)
    first, second = scene.view(), scene.view()
    assert (first.recent(), second.recent()) == (2, 0)
    scene.expunge(2)
    first.sync(allow_expunge=True)
    assert first.recent() == 1
    scene.add()
    first.recent_uids.add(range(3, 4))
    assert first.sync(allow_expunge=True).recent == 2


class CountingColumns:
    """Stands for columns and fails the test when something proportional to the mailbox is touched."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.reads: list[str] = []

    def __getattr__(self, name: str) -> object:
        self.reads.append(name)
        return getattr(self._columns, name)


def test_a_sync_with_nothing_new_reads_no_message():
    scene = Scene(3)
    view = scene.view()
    counting = CountingColumns(scene.columns)
    view.columns = counting  # type: ignore[assignment]
    assert not view.sync(allow_expunge=True)
    assert not view.behind()
    assert not {"flags", "modseqs", "sizes", "dates", "position"} & set(counting.reads)
    assert view.uids is scene.columns.uids


class Views(RuleBasedStateMachine):
    """Several sessions on one mailbox; each client replays what it is told and must end with the truth."""

    replays: list[Replay]

    @initialize(messages=st.integers(0, 6))
    def begin(self, messages: int) -> None:
        self.scene = Scene(messages)
        self.replays = []
        self.open_view()

    @rule()
    @precondition(lambda self: len(self.replays) < 4)
    def open_view(self) -> None:
        self.replays.append(Replay(self.scene.view()))

    @rule(data=st.data())
    @precondition(lambda self: len(self.replays) > 1)
    def close_view(self, data: st.DataObject) -> None:
        self.replays.remove(data.draw(st.sampled_from(self.replays)))

    @rule(count=st.integers(1, 3))
    def new_mail(self, count: int) -> None:
        fill(self.scene.mailbox, count)

    @rule(data=st.data())
    def expunge(self, data: st.DataObject) -> None:
        self.scene.mailbox.expunge(self.draw_uids(data), only_deleted=False)

    @rule(data=st.data(), how=st.sampled_from(FlagChange), flag=st.sampled_from(["\\Seen", "\\Flagged", "a", "b"]))
    def store(self, data: st.DataObject, how: FlagChange, flag: str) -> None:
        self.scene.mailbox.store_flags(self.draw_uids(data), how, [flag])

    @rule(data=st.data(), flag=st.sampled_from(["\\Seen", "\\Flagged", "a", "b"]))
    def store_silently(self, data: st.DataObject, flag: str) -> None:
        replay = data.draw(st.sampled_from(self.replays))
        uids = self.draw_uids(data)
        scene = self.scene
        scene.catch_up()
        scene.columns.begin_own()
        scene.mailbox.store_flags(uids, FlagChange.ADD, [flag])
        scene.catch_up()
        replay.stored_silently(uids, flag)

    @rule()
    def catch_up(self) -> None:
        self.scene.catch_up()
        columns = self.scene.columns
        columns.forget_expunged(min(replay.view.expunged_position for replay in self.replays))

    @rule(data=st.data(), allow_expunge=st.booleans(), late=st.integers(0, 3))
    def sync(self, data: st.DataObject, allow_expunge: bool, late: int) -> None:
        below = max(1, self.scene.mailbox.uid_next - late)
        data.draw(st.sampled_from(self.replays)).sync(allow_expunge=allow_expunge, below=below)

    @invariant()
    def numbers_agree(self) -> None:
        for replay in self.replays:
            replay.check_numbers()

    def teardown(self) -> None:
        if not hasattr(self, "scene"):
            return
        self.scene.catch_up()
        for replay in self.replays:
            replay.sync(allow_expunge=True)
            replay.check_equal(self.scene.mailbox)
            assert not replay.view.behind()
            assert replay.view.is_synced

    def draw_uids(self, data: st.DataObject) -> list[int]:
        return data.draw(st.lists(st.integers(1, max(1, self.scene.mailbox.uid_next)), max_size=4, unique=True))


@pytest.fixture(autouse=True)
def short_logs(request, monkeypatch):
    if "Views" in request.node.nodeid:
        monkeypatch.setattr(columns_module, "LOG_LIMIT", 2)


TestViews = Views.TestCase
TestViews.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_a_run_of_messages_is_not_looked_up_one_by_one(monkeypatch):
    """STORE 1:* on a large mailbox: the own session's silence, and what the others are told."""
    scene = Scene(50)
    own, other = scene.view(), scene.view()
    scene.columns.begin_own()
    scene.flag(*range(1, 51))
    looked, real = [], Columns.position
    monkeypatch.setattr(Columns, "position", lambda self, uid: (looked.append(uid), real(self, uid))[1])
    own.silence(list(range(1, 51)))
    assert not own.sync(allow_expunge=False).flags
    assert list(other.sync(allow_expunge=False).flags) == [(number, number) for number in range(1, 51)]
    assert len(looked) <= 3
