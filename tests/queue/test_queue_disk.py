"""Disks that are full, fail or lose their power: what was acknowledged is there, and files go only with their rows."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from attrs import Factory, define

from mailserver.errors import NoSpace, StorageFailure
from mailserver.queue.interfaces import Content
from mailserver.store.maildir.disk.recorder import Change
from tests.queue.queues import NOW, envelope, names, open_queue, put, target
from tests.queue.sqlite_calls import watched
from tests.queue.test_work import DOWN, LATER, NEVER, SENT, every, one, open_work
from tests.store.power import Disk, Kind
from tests.sweeps import part

# --- a log that cannot be synced


def test_an_acceptance_whose_sync_fails_is_refused_and_leaves_nothing_that_comes_back(tmp_path: Path) -> None:
    root = tmp_path / "queue"
    with watched(root) as calls:
        queue = open_queue(root)
        before = put(queue)
        refused = queue.write(envelope(), [target()], Content(b"x"))
        with calls.failing_syncs(), pytest.raises(StorageFailure):
            queue.accept([refused], "token")
        assert queue.lock.is_marked()
        queue.discard(refused)
        # The frames are whole in the log: a crash now would bring the message back, so that its file must be there.
        assert (queue.spool.directory / refused.name).exists()
        after = put(open_queue(root))
        assert not queue.lock.is_marked()
    shutil.copytree(root, tmp_path / "crashed", ignore=shutil.ignore_patterns("*-shm"))
    crashed = open_queue(tmp_path / "crashed")
    assert names(crashed) == {before.name, after.name}
    assert not crashed.decided("token")


def test_what_a_failed_commit_has_left_in_the_log_is_written_over_before_its_file_goes(tmp_path: Path) -> None:
    root = tmp_path / "queue"
    with watched(root) as calls:
        queue, work = open_work(root)
        before = put(queue)
        refused = queue.write(envelope(), [target()], Content(b"x"))
        with calls.failing_syncs(), pytest.raises(StorageFailure):
            queue.accept([refused])
        assert _after_crash(root, tmp_path / "early") == {before.name, refused.name}
        os.utime(queue.spool.directory / refused.name, (0, 0))
        assert work.sweep(NOW) == [refused.name]
    assert _after_crash(root, tmp_path / "late") == {before.name}


def _after_crash(root: Path, copy: Path) -> set[str]:
    """The messages that a recovery of the log finds."""
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("*-shm"))
    return names(open_queue(copy))


def test_while_syncs_fail_nothing_is_accepted_nor_removed(tmp_path: Path) -> None:
    root = tmp_path / "queue"
    with watched(root) as calls:
        queue, work = open_work(root)
        spooled = put(queue)
        work.results([(one(work), SENT)], NOW)
        waiting = [queue.write(envelope(), [target()], Content(b"x")) for _ in range(2)]
        with calls.failing_syncs():
            with pytest.raises(StorageFailure):
                queue.accept(waiting[:1])
            with pytest.raises(StorageFailure):
                queue.accept(waiting[1:])
        assert (queue.spool.directory / spooled.name).exists()
        assert names(queue) == set()
        queue.accept(waiting)
        assert work.sync() == 1
    assert names(queue) == {each.name for each in waiting}


# --- a full disk


def test_a_log_that_cannot_grow_is_moved_into_the_rows_and_written_over(tmp_path: Path) -> None:
    root = tmp_path / "queue"
    with watched(root) as calls:
        queue, work = open_work(root)
        for number in range(30):
            put(queue, target(f"user{number}"))
        limit = os.path.getsize(root / "queue.sqlite-wal")
        waiting = queue.write(envelope(), [target()], Content(b"x"))
        calls.fails = lambda path: errno.ENOSPC if path.endswith("-wal") and calls.end > limit else 0
        for recipient in every(work):
            work.results([(recipient, SENT)], NOW)
        queue.accept([waiting])
        assert os.path.getsize(root / "queue.sqlite-wal") <= limit
    assert names(open_queue(root)) == {waiting.name}


def test_a_disk_that_is_full_for_good_refuses_and_keeps_what_is_there(tmp_path: Path) -> None:
    root = tmp_path / "queue"
    with watched(root) as calls:
        queue, work = open_work(root)
        kept = put(queue)
        written = queue.write(envelope(), [target()], Content(b"x"))
        calls.fails = lambda _path: errno.ENOSPC
        with pytest.raises(NoSpace):
            queue.accept([written])
        with pytest.raises(NoSpace):
            work.results([(one(work), SENT)], NOW)
        calls.fails = lambda _path: 0
        assert names(queue) == {kept.name}
        queue.accept([written])
        work.results([(each, SENT) for each in every(work)], NOW)
    assert names(queue) == set()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_write_that_fails_anywhere_leaves_all_or_nothing(tmp_path: Path, code: int) -> None:
    seen = set()
    for nth in range(1, 100):
        root = tmp_path / f"queue{nth}"
        with watched(root) as calls:
            queue = open_queue(root)
            kept = put(queue)
            written = [queue.write(envelope(), [target()], Content(b"x")) for _ in range(2)]
            calls.writes = 0
            calls.fails = lambda _path, calls=calls, nth=nth: code if calls.writes == nth else 0  # type: ignore[misc]
            try:
                queue.accept(written, "token")
                accepted = True
            except StorageFailure:
                accepted = False
            done = calls.writes < nth
            calls.fails = lambda _path: 0
            expected = {kept.name, *(each.name for each in written)} if accepted else {kept.name}
            assert names(queue) == expected == names(open_queue(root))
            assert queue.decided("token") == accepted
            put(queue)
        seen.add(accepted)
        if done:
            break
    # Where the disk is full once, the second attempt succeeds.
    assert seen == ({True, False} if code == errno.EIO else {True})


# --- power cuts


@define
class Recording:
    """What was acknowledged, at which change."""

    changes: list[Change]
    accepted: list[tuple[int, str]] = Factory(list)
    """Messages, from that change on."""
    results: list[tuple[int, int, str]] = Factory(list)
    """Begun at a change, safe from a change on (0: never), the message."""
    tokens: list[tuple[int, str]] = Factory(list)


def record(root: Path) -> Recording:
    """Some acceptances, results, reports and syncs."""
    open_queue(root).close()
    base = root.with_name("base")
    shutil.copytree(root, base)
    with watched(root) as calls:
        recording = Recording(calls.changes)
        queue, work = open_work(root)

        def accept(*names_: str, token: str = "") -> None:
            spooled = [queue.write(envelope(), [target(name)], Content(b"Subject: x\r\n\r\n")) for name in names_]
            queue.accept(spooled, token)
            # SQLite's own sync, which cannot be watched, belongs to the commit of an acceptance.
            calls.changes.append(Change("sync", f"{root}/queue.sqlite-wal"))
            recording.accepted += [(len(calls.changes), each.name) for each in spooled]
            if token:
                recording.tokens.append((len(calls.changes), token))

        def settle(count: int, outcome: object = SENT) -> None:
            for recipient in every(work)[:count]:
                begun = len(calls.changes)
                work.results([(recipient, outcome)], NOW)  # type: ignore[list-item]
                recording.results.append((begun, 0, ids[recipient.id]))

        def sync() -> None:
            work.sync()
            at = len(calls.changes)
            recording.results = [(begun, safe or at, name) for begun, safe, name in recording.results]

        ids: dict[int, str] = {}

        def remember() -> None:
            ids.update(
                {
                    each.id: found.message.name
                    for found in work.take("example.com", NOW, 99)
                    for each in found.recipients
                }
            )

        accept("a", "b", token="first")
        accept("c")
        remember()
        settle(1)
        accept("d", "e", token="second")
        remember()
        settle(1, NEVER)
        sync()
        settle(2)
        accept("f")
        sync()
        work.results([(every(work)[0], LATER)], NOW)
        work.results([(each, DOWN) for each in every(work)], NOW)
        sync()
        queue.close()
        work.close()
    return recording


@pytest.mark.parametrize("kind", ["strict", "journal", "torn", "everything"])
def test_a_power_cut_at_any_moment_keeps_what_was_acknowledged(tmp_path: Path, kind: Kind) -> None:
    root = tmp_path / "queue"
    recording = record(root)
    # Always right behind an acknowledgement, where most can be lost.
    told = {at for at, _name in recording.accepted} | {safe for _at, safe, _name in recording.results}
    positions = sorted({*part(range(len(recording.changes) + 1), 12), *told})
    whole = 0
    for position in positions:
        found = Disk(str(tmp_path / "base"))
        found.root = str(root)
        found.replay(recording.changes[:position])
        left = tmp_path / f"{kind}{position}"
        found.leave(str(left), kind)
        (left / "queue.sqlite-shm").unlink(missing_ok=True)
        queue, work = open_work(left)
        there = names(queue)
        for name in there:
            assert queue.spool.parse(name).name == name, f"{position}: a row without its file"
        begun = {name for at, _safe, name in recording.results if at < position}
        accepted = {name for at, name in recording.accepted if at <= position}
        assert accepted - begun <= there, f"{position}: an acknowledged message was lost"
        safe = {name for _at, safe, name in recording.results if safe and safe <= position}
        assert not safe & there, f"{position}: a result came back"
        if any(safe and safe <= position for _at, safe, _name in recording.results[1:2]):
            assert len(every(work, "reports")) == 1
        for at, token in recording.tokens:
            if at <= position:
                assert queue.decided(token)
        put(queue)
        whole += len(there)
        work.close()
        queue.close()
        shutil.rmtree(left)
    assert whole
    assert len(recording.changes) > 60
