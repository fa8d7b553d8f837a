"""Decisions about copies in the table of the mail queue, opened when it is first needed."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

import pytest

from mailserver.errors import MailError, StorageFailure
from mailserver.queue import commit_lock
from mailserver.queue.model import QueueBusy, QueueDamaged, TokenRefused
from mailserver.queue.tokens import make_token
from mailserver.wiring import copy_decisions
from mailserver.wiring.copy_decisions import QueueDecisions


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "queue"


def test_what_is_decided_is_known_to_the_next_process(directory: Path) -> None:
    decisions = QueueDecisions(directory)
    decisions.get_ready()
    assert directory.stat().st_mode & 0o777 == 0o700
    decisions.decide("a")
    decisions.close()
    again = QueueDecisions(directory)
    assert again.decided("a")
    again.forget(["a"])
    assert not again.decided("a")
    again.close()


def test_what_was_asked_for_in_vain_is_never_decided(directory: Path) -> None:
    slow, other = QueueDecisions(directory), QueueDecisions(directory)
    slow.get_ready()
    assert not other.decided("a")
    with pytest.raises(TokenRefused):
        slow.decide("a")
    slow.close()
    other.close()


def test_nothing_is_made_before_it_is_needed_and_without_a_table_nobody_can_tell(directory: Path) -> None:
    decisions = QueueDecisions(directory)
    with pytest.raises(StorageFailure):
        decisions.decided("a")
    assert not directory.exists()
    # Another process makes it.
    other = QueueDecisions(directory)
    other.get_ready()
    assert not decisions.decided("a")
    decisions.close()
    other.close()


def test_a_directory_that_cannot_be_used_is_tried_again(directory: Path) -> None:
    directory.write_text("a file")
    decisions = QueueDecisions(directory)
    for _ in range(2):
        with pytest.raises(MailError):
            decisions.get_ready()
    directory.unlink()
    decisions.get_ready()
    decisions.decide("a")
    decisions.close()
    # A session that still ends opens it once more.
    assert decisions.decided("a")
    decisions.close()


def test_the_name_of_a_new_directory_is_synced_before_anything_is_decided(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, made = copy_decisions.sync_directory, copy_decisions.MailQueue

    def watched(path: Path) -> None:
        steps.append(path.name)
        sync(path)

    monkeypatch.setattr(copy_decisions, "sync_directory", watched)
    monkeypatch.setattr(
        copy_decisions, "MailQueue", lambda *rest, **more: (steps.append("open"), made(*rest, **more))[1]
    )
    decisions = QueueDecisions(directory)
    decisions.get_ready()
    decisions.get_ready()
    assert steps == [directory.parent.name, "open"]
    decisions.close()


def test_threads_open_it_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = copy_decisions.MailQueue
    opened: list[object] = []
    both = threading.Barrier(2, timeout=20)

    def opening(*rest: object, **more: object) -> object:
        opened.append(made(*rest, **more))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(copy_decisions, "MailQueue", opening)
    decisions = QueueDecisions(directory)

    def decide(token: str) -> None:
        both.wait()
        decisions.decide(token)

    threads = [threading.Thread(target=decide, args=(token,)) for token in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert decisions.decided("a")
    assert decisions.decided("b")
    decisions.close()


def _move(directory: Path, names: str, to: str) -> None:
    (directory.parent / to).mkdir(exist_ok=True)
    for path in directory.glob(names):
        path.rename(directory.parent / to / path.name)


def _put_back(directory: Path, kept: str) -> None:
    for path in (directory.parent / kept).iterdir():
        path.rename(directory / path.name)


@pytest.mark.parametrize("moved", ["queue.sqlite*", "*"], ids=["rows", "all"])
def test_copies_are_rather_kept_than_lost_where_a_new_table_is_made(directory: Path, moved: str) -> None:
    earlier = make_token(int(time.time()) - 60)
    before = QueueDecisions(directory)
    before.get_ready()
    before.decide(earlier)
    before.close()
    _move(directory, moved, "kept")
    after = QueueDecisions(directory)
    with pytest.raises(StorageFailure):
        after.decided(earlier)
    # The next message with several copies makes a table.
    after.get_ready()
    later = make_token(int(time.time()))
    assert after.decided(earlier)
    assert not after.decided(later)
    after.close()


@pytest.mark.parametrize("moved", ["queue.sqlite", "queue.sqlite*"], ids=["rows", "with-log"])
@pytest.mark.parametrize("other", ["text", "rows"])
def test_a_table_that_was_moved_away_from_a_running_server_and_put_back_is_whole(
    directory: Path, moved: str, other: str
) -> None:
    decisions = QueueDecisions(directory)
    decisions.get_ready()
    decisions.decide("a")
    _move(directory, moved, "kept")
    if other == "text":
        (directory / "queue.sqlite").write_bytes(b"hello" * 5000)
    else:
        elsewhere = QueueDecisions(directory.parent / "elsewhere")
        elsewhere.get_ready()
        elsewhere.close()
        (directory.parent / "elsewhere/queue.sqlite").rename(directory / "queue.sqlite")
    if (moved, other) != ("queue.sqlite*", "rows"):
        with pytest.raises(QueueDamaged):
            decisions.decide("b")
    for path in directory.glob("queue.sqlite") if moved == "queue.sqlite" else directory.glob("queue.sqlite*"):
        path.unlink()
    _put_back(directory, "kept")
    assert decisions.decided("a")
    decisions.decide("c")
    again = QueueDecisions(directory)
    assert again.decided("a")
    assert again.decided("c")
    assert not again.decided("b")
    again.close()
    decisions.close()


def test_a_process_that_hangs_with_the_lock_makes_nobody_wait_behind_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = copy_decisions.MailQueue
    tries: list[object] = []

    def opening(*rest: object, **more: object) -> object:
        tries.append(more)
        assert both_wait.wait(20)
        raise QueueBusy

    both_wait = threading.Event()
    monkeypatch.setattr(copy_decisions, "MailQueue", opening)
    decisions = QueueDecisions(directory)
    lock = decisions._opening
    failures: list[Exception] = []

    class Opening:
        """Tells when a thread waits for it."""

        def acquire(self, timeout: float) -> bool:
            if lock.acquire(blocking=False):
                return True
            both_wait.set()
            return lock.acquire(timeout=timeout)

        release = lock.release

    monkeypatch.setattr(decisions, "_opening", Opening())

    def ready() -> None:
        try:
            decisions.get_ready()
        except MailError as error:
            failures.append(error)

    first, second = threading.Thread(target=ready), threading.Thread(target=ready)
    first.start()
    second.start()
    first.join()
    second.join()
    assert len(tries) == 1
    assert [type(each) for each in failures] == [QueueBusy, QueueBusy]
    # The next one tries again.
    monkeypatch.setattr(copy_decisions, "MailQueue", made)
    monkeypatch.setattr(decisions, "_opening", lock)
    decisions.get_ready()
    decisions.close()


def test_who_asks_or_forgets_does_not_wait_long_for_a_process_that_hangs(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account's lock is held meanwhile."""
    monkeypatch.setattr(commit_lock, "time", FakeTime())
    decisions = QueueDecisions(directory)
    decisions.get_ready()
    new = QueueDecisions(directory)
    with (directory / "commit.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for each in (decisions, new):
            FakeTime.slept = 0.0
            with pytest.raises(QueueBusy):
                each.decided("a")
            assert FakeTime.slept < 1.1
        FakeTime.slept = 0.0
        with pytest.raises(QueueBusy):
            decisions.forget(["a"])
        assert FakeTime.slept < 1.1, "a client waits for its answer"
    assert not new.decided("a")
    decisions.close()
    new.close()


class FakeTime:
    """A clock that only sleeping moves."""

    slept = 0.0

    def monotonic(self) -> float:
        return FakeTime.slept

    def sleep(self, seconds: float) -> None:
        FakeTime.slept += seconds
