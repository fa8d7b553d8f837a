"""Acceptances: what is acknowledged is there, once; what is refused is not; those that meet share the syncs."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import apsw
import pytest

from mailserver.errors import BadSyntax, MailError, NoSpace, StorageFailure
from mailserver.queue import commit_lock, disk, rows, spool
from mailserver.queue.interfaces import Content
from mailserver.queue.mail_queue import MailQueue
from mailserver.queue.model import (
    MAX_TEXT,
    MessageMissing,
    QueueBusy,
    QueueDamaged,
    QueueTooNew,
    Settings,
    TokenRefused,
)
from tests.queue.queues import NOW, envelope, killed, names, open_queue, put, target


def files(queue: MailQueue) -> set[str]:
    return set(os.listdir(queue.spool.directory))


def test_a_message_is_in_its_file_behind_a_line_that_tells_its_envelope(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    (tmp_path / "body").write_bytes(b"no" + b"x" * 3_000_000 + b"no")
    sent = envelope(eight_bit=True, envid="a+2Bb", user="alice", ret="HDRS")
    targets = (target(sender="SRS0=x@example.org", notify="NEVER"), target("carol", orcpt="rfc822;c", kind="here"))
    with open(tmp_path / "body", "rb") as body:
        spooled = queue.write(sent, targets, Content(b"Subject: x\r\n\r\n", (body.fileno(), 2, 3_000_000)))
    octets = (queue.spool.directory / spooled.name).read_bytes()
    assert octets[spooled.start :] == b"Subject: x\r\n\r\n" + b"x" * 3_000_000
    assert spooled.size == len(octets) - spooled.start
    assert queue.spool.parse(spooled.name) == spooled
    assert (spooled.envelope, spooled.targets) == (sent, targets)


def test_what_is_accepted_is_seen_by_another_process_and_what_is_written_alone_is_not(tmp_path: Path) -> None:
    queue, other = open_queue(tmp_path / "queue"), open_queue(tmp_path / "queue")
    spooled = put(queue)
    queue.write(envelope(), [target()], Content(b"x"))
    assert names(other) == {spooled.name}
    assert len(files(queue)) == 2


def test_all_messages_of_an_acceptance_are_committed_or_none(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    first, second = (queue.write(envelope(), [target()], Content(b"x")) for _ in range(2))
    queue.spool.remove(second.name)
    with pytest.raises(MessageMissing):
        queue.accept([first, second], "token", sent=[("alice", 2)])
    assert not names(queue)
    assert queue.sent("alice", 0) == 0
    queue.accept([first], "token", sent=[("alice", 2)])
    assert names(queue) == {first.name}


def test_a_file_that_is_not_whole_is_not_accepted(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = queue.write(envelope(), [target()], Content(b"whole"))
    os.truncate(queue.spool.directory / spooled.name, spooled.start + 4)
    with pytest.raises(MessageMissing):
        queue.accept([spooled])


def test_a_message_is_accepted_once(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = put(queue)
    with pytest.raises(StorageFailure):
        queue.accept([spooled])
    assert names(queue) == {spooled.name}


def test_recipients_are_counted_by_the_hour(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    hour = NOW - NOW % 3600
    for _ in range(2):
        queue.accept([], sent=[("alice", 3), ("bob", 1)])
    later = open_queue(tmp_path / "queue", now=hour + 3600)
    later.accept([], sent=[("alice", 10)])
    assert [queue.sent("alice", since) for since in (hour, hour + 3599, hour + 3600, hour + 7200)] == [16, 16, 10, 0]


# --- tokens


def test_a_token_is_decided_once_it_is_committed(tmp_path: Path) -> None:
    queue, recovery = open_queue(tmp_path / "queue"), open_queue(tmp_path / "queue")
    queue.accept([], "copies alone")
    put(queue, token="with a message")
    assert recovery.decided("copies alone")
    assert recovery.decided("with a message")


def test_a_token_that_a_recovery_has_asked_for_can_never_be_committed(tmp_path: Path) -> None:
    queue, recovery = open_queue(tmp_path / "queue"), open_queue(tmp_path / "queue")
    spooled = queue.write(envelope(), [target()], Content(b"x"))
    assert not recovery.decided("slow")
    recovery.forget(["slow"])
    with pytest.raises(TokenRefused):
        queue.accept([spooled], "slow")
    assert not names(queue)
    assert not recovery.decided("slow")


def test_a_token_that_was_settled_is_forgotten(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    queue.accept([], "one")
    queue.accept([], "two")
    queue.forget(["one", "unknown"])
    assert queue.rows.read("SELECT token FROM decision") == [("two",)]


# --- groups


class Meeting:
    """The first acceptance waits within its transaction until others wait behind it."""

    def __init__(self, queue: MailQueue, others: int) -> None:
        self._queue, self._others = queue, others
        self.syncs = 0
        self.commits = 0

    def __call__(self, name: str) -> None:
        self.syncs += name == "accept.names-synced"
        self.commits += name == "commit.before"
        if name == "commit.before" and self.commits == 1:
            until = time.monotonic() + 60
            while len(self._queue._acceptor._waiting) < self._others and time.monotonic() < until:
                time.sleep(0.001)


def meet(queue: MailQueue, works: list[Callable[[], object]]) -> tuple[Meeting, list[MailError | None]]:
    results: list[MailError | None] = [None] * len(works)
    meeting = Meeting(queue, len(works) - 1)

    def run(number: int) -> None:
        try:
            works[number]()
        except MailError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    with mock.patch.object(disk, "hook", meeting):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    return meeting, results


def test_acceptances_that_meet_share_one_sync_and_one_transaction(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = [queue.write(envelope(), [target()], Content(b"x")) for _ in range(9)]
    meeting, results = meet(queue, [lambda each=each: queue.accept([each]) for each in spooled])  # type: ignore[misc]
    assert (meeting.syncs, meeting.commits) == (2, 2)
    assert results == [None] * 9
    assert names(queue) == {each.name for each in spooled}


def test_a_refused_acceptance_hurts_none_that_it_meets(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    queue.decided("refused")
    spooled = [queue.write(envelope(), [target()], Content(b"x")) for _ in range(6)]
    queue.spool.remove(spooled[3].name)
    works: list[Callable[[], object]] = [lambda each=each: queue.accept([each]) for each in spooled]  # type: ignore[misc]
    works[4] = lambda: queue.accept([spooled[4]], "refused")
    _meeting, results = meet(queue, works)
    assert [type(each) for each in results[:3] + results[5:]] == [type(None)] * 4
    assert isinstance(results[3], MessageMissing)
    assert isinstance(results[4], TokenRefused)
    assert names(queue) == {spooled[number].name for number in (0, 1, 2, 5)}


def test_a_failed_commit_fails_all_that_share_it(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = [queue.write(envelope(), [target()], Content(b"x")) for _ in range(4)]
    with mock.patch.object(disk, "sync_directory", side_effect=OSError(errno.EIO, "broken")):
        _meeting, results = meet(queue, [lambda each=each: queue.accept([each]) for each in spooled])  # type: ignore[misc]
    assert [type(each) for each in results] == [StorageFailure] * 4
    assert len({id(each) for each in results}) == 4
    assert not names(queue)
    queue.accept(spooled)
    assert len(names(queue)) == 4


def test_who_waits_too_long_for_another_process_is_told_to_try_again(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = queue.write(envelope(), [target()], Content(b"x"))
    hung = os.open(tmp_path / "queue/commit.lock", os.O_RDWR)
    fcntl.flock(hung, fcntl.LOCK_EX)
    with mock.patch.object(commit_lock.CommitLock.held, "__defaults__", (0.02,)), pytest.raises(QueueBusy):
        queue.accept([spooled])
    os.close(hung)
    queue.accept([spooled])
    assert names(queue) == {spooled.name}


# --- processes


def _accept_many(directory: Path, prefix: str) -> None:
    queue = open_queue(directory)

    def run(thread: int) -> None:
        for number in range(15):
            spooled = queue.write(envelope(session=f"{prefix}{thread}.{number}"), [target()], Content(b"x"))
            queue.accept([spooled], f"{prefix}{thread}.{number}", sent=[("alice", 1)])

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_processes_with_threads_lose_nothing(tmp_path: Path) -> None:
    open_queue(tmp_path / "queue").close()
    children = []
    for prefix in ("a", "b"):
        child = os.fork()
        if not child:
            try:
                _accept_many(tmp_path / "queue", prefix)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    queue = open_queue(tmp_path / "queue")
    assert len(names(queue)) == 120
    assert len({row[0] for row in queue.rows.read("SELECT session FROM message")}) == 120
    assert queue.sent("alice", 0) == 120
    assert names(queue) == files(queue)


def test_a_process_killed_at_any_point_leaves_all_of_an_acceptance_or_none(tmp_path: Path) -> None:
    acknowledged = tmp_path / "acknowledged"
    outcomes = set()
    for at in range(1, 20):
        directory = tmp_path / f"queue{at}"
        open_queue(directory).close()

        def work(directory: Path = directory) -> None:
            queue = open_queue(directory)
            spooled = [queue.write(envelope(), [target()], Content(b"x")) for _ in range(2)]
            queue.accept(spooled, "token", sent=[("alice", 2)])
            acknowledged.write_bytes(b"")

        reached = killed(work, at)
        queue = open_queue(directory)
        there = len(names(queue))
        assert there == (2 if queue.decided("token") else 0) == queue.sent("alice", 0)
        assert names(queue) <= files(queue)
        outcomes.add((there, reached))
        if not reached:
            assert at > 6, "points are missing"
            break
        assert not acknowledged.exists()
        put(queue)
    assert outcomes == {(0, True), (2, True), (2, False)}


def test_a_process_killed_while_it_makes_the_rows_leaves_a_directory_that_works(tmp_path: Path) -> None:
    for at in range(1, 5):
        directory = tmp_path / f"queue{at}"
        reached = killed(lambda directory=directory: open_queue(directory), at)  # type: ignore[misc]
        queue = open_queue(directory)
        assert names(queue) == set()
        put(queue)
        if not reached:
            assert at > 1
            break


# --- what is there already


def test_rows_that_are_missing_beside_messages_are_not_made_anew(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    put(queue)
    queue.close()
    (tmp_path / "queue/queue.sqlite").unlink()
    with pytest.raises(QueueDamaged) as caught:
        open_queue(tmp_path / "queue")
    assert "there are messages and no rows" in caught.value.reason
    assert "rebuild" not in caught.value.sentence
    assert not (tmp_path / "queue/queue.sqlite").exists()


@pytest.mark.parametrize("damage", ["empty", "text", "torn", "another"])
def test_rows_that_are_damaged_are_refused(tmp_path: Path, damage: str) -> None:
    queue = open_queue(tmp_path / "queue")
    for _ in range(20):
        put(queue)
    queue.rows.checkpoint()
    queue.close()
    path = tmp_path / "queue/queue.sqlite"
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"queue/queue.sqlite{suffix}").unlink()
    octets = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_bytes(b"hello" * 5000)
        case "torn":
            path.write_bytes(octets[:4096] + b"\xff" * (len(octets) - 4096))
        case "another":
            path.unlink()
            other = apsw.Connection(str(path))
            other.execute("CREATE TABLE x (y)")
            other.close()
    with pytest.raises(QueueDamaged):
        put(open_queue(tmp_path / "queue"))


def test_rows_of_a_newer_release_are_left_alone(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    queue.rows.write(lambda connection: connection.execute("UPDATE meta SET version = 9, oldest = 9"))
    with pytest.raises(QueueTooNew):
        open_queue(tmp_path / "queue")


def test_files_are_for_the_service_alone(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    put(queue)
    found = [path for path in (tmp_path / "queue").rglob("*") if path.stat().st_mode & 0o077]
    assert not found


def test_the_wal_stays_at_close(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = put(queue)
    queue.close()
    assert (tmp_path / "queue/queue.sqlite-wal").stat().st_size > 0
    assert names(open_queue(tmp_path / "queue")) == {spooled.name}


def test_the_wal_is_moved_into_the_rows_and_used_again(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    with mock.patch.object(rows, "CHECKPOINT_PAGES", 20):
        for _ in range(60):
            put(queue)
    assert (tmp_path / "queue/queue.sqlite-wal").stat().st_size < 60 * 4096
    assert len(names(open_queue(tmp_path / "queue"))) == 60


# --- the disk


@pytest.mark.parametrize(
    ("call", "code", "expected"),
    [
        pytest.param("create", errno.ENOSPC, NoSpace, id="create-full"),
        pytest.param("write", errno.ENOSPC, NoSpace, id="write-full"),
        pytest.param("write", errno.EDQUOT, NoSpace, id="write-quota"),
        pytest.param("write", errno.EIO, StorageFailure, id="write-broken"),
        pytest.param("sync", errno.EIO, StorageFailure, id="sync-broken"),
        pytest.param("sync", errno.ENOSPC, NoSpace, id="sync-full"),
    ],
)
def test_a_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, call: str, code: int, expected: type[MailError]
) -> None:
    queue = open_queue(tmp_path / "queue")
    with mock.patch.object(disk, call, side_effect=OSError(code, "fails")), pytest.raises(expected) as caught:
        queue.write(envelope(), [target()], Content(b"x"))
    assert type(caught.value) is expected
    assert not files(queue)


def test_a_short_write_is_gone_on_with(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    whole = os.pwrite
    with mock.patch.object(os, "pwrite", lambda fd, data, offset: whole(fd, bytes(data[:7]), offset)):
        spooled = queue.write(envelope(), [target()], Content(b"a longer text"))
    assert queue.spool.parse(spooled.name) == spooled


def test_a_body_that_became_shorter_is_refused(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    (tmp_path / "body").write_bytes(b"short")
    with open(tmp_path / "body", "rb") as body, pytest.raises(StorageFailure):
        queue.write(envelope(), [target()], Content(b"", (body.fileno(), 0, 6)))
    assert not files(queue)


def test_a_disk_with_less_than_the_minimum_is_full(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    queue.check_space(1000)
    with pytest.raises(NoSpace):
        queue.check_space(1 << 60)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(NoSpace):
        MailQueue(tmp_path / "queue", Settings(minimum_free=free * 2)).check_space(0)


def test_a_file_that_was_swept_under_a_hung_session_is_not_acknowledged(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = queue.write(envelope(), [target()], Content(b"x"))
    queue.discard(spooled)
    queue.discard(spooled)
    with pytest.raises(MessageMissing):
        queue.accept([spooled])


# --- hostile envelopes


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        pytest.param({"sender": "a\r\nb"}, {}, id="sender-lines"),
        pytest.param({"sender": "x" * (MAX_TEXT + 1)}, {}, id="sender-long"),
        pytest.param({"envid": "\x00"}, {}, id="envid-nul"),
        pytest.param({"session": "\ud800"}, {}, id="session-surrogate"),
        pytest.param({"ret": "ALL"}, {}, id="ret"),
        pytest.param({}, {"name": "a\n", "domain": "b"}, id="address-lines"),
        pytest.param({}, {"destination": ""}, id="no-destination"),
        pytest.param({}, {"destination": "é" * MAX_TEXT}, id="destination-long"),
        pytest.param({}, {"sender": "\x1b[2J"}, id="target-sender"),
        pytest.param({}, {"kind": "else"}, id="kind"),
    ],
)
def test_an_envelope_that_cannot_be_is_refused_before_it_costs_anything(
    tmp_path: Path, values: dict[str, str], wrong: dict[str, str]
) -> None:
    queue = open_queue(tmp_path / "queue")
    with pytest.raises(BadSyntax):
        queue.write(envelope(**values), [target(), target(**wrong)], Content(b"x"))
    assert not files(queue)


def test_a_message_without_recipients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSyntax):
        open_queue(tmp_path / "queue").write(envelope(), [], Content(b"x"))


def test_an_envelope_is_bounded(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    with mock.patch.object(spool, "MAX_LINE", 10_000), pytest.raises(BadSyntax):
        queue.write(envelope(), [target(f"user{number}") for number in range(100)], Content(b"x"))
    assert not files(queue)


def test_quotes_and_foreign_letters_come_back_as_they_were(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    odd = "\"'; DROP TABLE message; --\\u000a{}é漢😀"
    spooled = put(queue, target(destination=odd, orcpt=odd), sender=odd, message_id=odd, utf8=True)
    assert queue.spool.parse(spooled.name) == spooled
    assert queue.rows.read("SELECT sender, message_id FROM message") == [(odd, odd)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b'{"format":1,"envelope":{"sender":"a","received":1},"targets":[],"size":1}\n',
        b'{"format":2,"envelope":{"sender":"a","received":1},"targets":[{"address":"a","destination":"b"}],"size":1}\n',
        b'{"format":1,"envelope":{"sender":"a","received":true},"targets":[{"address":"a","destination":"b"}],"size":1}\n',
        b'{"format":1,"envelope":{"sender":"a","received":1e400},"targets":[{"address":"a","destination":"b"}],"size":1}\n',
        b'{"format":1,"envelope":{"sender":"a","received":1,"x":1},"targets":[{"address":"a","destination":"b"}],"size":1}\n',
        b'{"format":1,"envelope":{"sender":"a","received":1},"targets":[{"address":"a","destination":"b"}],"size":-1}\n',
        b'{"format":1,"envelope":{"sender":"a","received":1},"targets":[{"address":"a\\n","destination":"b"}],"size":1}\n',
        b'{"format":1,"envelope":{"sender":"a","received":%d},"targets":[{"address":"a","destination":"b"}],"size":1}\n' % 10**30,
        b'{"format":1,"envelope":{"sender":"a","received":1},"targets":[{"address":"a","destination":"b"}],"size":1}',
    ],
    ids=["empty", "object", "deep", "no-target", "format", "truth", "infinite", "unknown", "size", "lines", "huge", "cut"],
)  # fmt: skip
def test_a_line_that_is_none_of_ours_is_refused(line: bytes) -> None:
    with pytest.raises(MessageMissing):
        spool.parse_line("0" * 20, line)
