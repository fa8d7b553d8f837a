"""The side of the process that sends: what is due, what results change, what is reported, which files go."""

from __future__ import annotations

import email
import email.policy
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

from mailserver.errors import RelayRefused, StorageFailure
from mailserver.queue import changes, disk
from mailserver.queue import work as work_module
from mailserver.queue.interfaces import Content, Spooled
from mailserver.queue.mail_queue import MailQueue
from mailserver.queue.model import MessageMissing, QueueBusy, Recipient, Target, TokenRefused
from mailserver.queue.outcome import Outcome, delivered_here, no_such_domain, outcome_of_reply, outcome_of_silence
from mailserver.queue.work import QueueWork
from tests.queue.queues import NOW, envelope, killed, names, open_queue, put, target

SENT = outcome_of_reply("message", 250, ["2.0.0 ok"], hop="mx.example.com")
SENT_DSN = outcome_of_reply("message", 250, ["2.0.0 ok"], hop="mx.example.com", dsn_offered=True)
LATER = outcome_of_reply("rcpt", 450, ["4.2.0 greylisted"], hop="mx.example.com")
NEVER = outcome_of_reply("rcpt", 550, ["5.1.1 no such user"], hop="mx.example.com")
DOWN = outcome_of_silence("connect", "connection refused")
DAY = 86400


def report_target(address: str) -> Target:
    if address.endswith("@nowhere.example"):
        raise RelayRefused
    return Target(address, "reports", "here")


def open_work(directory: Path, now: int = NOW) -> tuple[MailQueue, QueueWork]:
    queue = open_queue(directory, now)
    return queue, QueueWork(queue, report_target)


def one(work: QueueWork, destination: str = "example.com", now: int = NOW) -> Recipient:
    [found] = work.take(destination, now, 10)
    [recipient] = found.recipients
    return recipient


def every(work: QueueWork, destination: str = "example.com", now: int = NOW) -> list[Recipient]:
    return [recipient for each in work.take(destination, now, 1000) for recipient in each.recipients]


def text_of(queue: MailQueue, spooled: Spooled) -> bytes:
    return (queue.spool.directory / spooled.name).read_bytes()[spooled.start :]


def read_report(queue: MailQueue, reports: Sequence[Spooled]) -> email.message.EmailMessage:
    [spooled] = reports
    return email.message_from_bytes(text_of(queue, spooled), policy=email.policy.default)  # type: ignore[return-value]


# --- what is due


def test_what_is_accepted_is_due_at_once_by_destination(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    assert (work.due(NOW, 10), work.next_due()) == ([], None)
    first = put(queue, target("a"), target("b", "example.net"), target("c"), text=b"Subject: one\r\n\r\n")
    second = put(queue, target("d"))
    assert sorted(work.due(NOW, 10)) == ["example.com", "example.net"]
    assert work.next_due() == NOW
    tries = work.take("example.com", NOW, 10)
    assert [each.message.name for each in tries] == [first.name, second.name]
    assert [[one.target.address for one in each.recipients] for each in tries] == [
        ["a@example.com", "c@example.com"],
        ["d@example.com"],
    ]
    message = tries[0].message
    assert message.envelope == first.envelope
    assert [one.target for each in tries for one in each.recipients] == [
        first.targets[0],
        first.targets[2],
        *second.targets,
    ]
    fd = work.open(message)
    assert os.pread(fd, 100, message.start) == b"Subject: one\r\n\r\n"
    os.close(fd)


def test_what_is_being_tried_is_not_taken_again(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    for name in "abc":
        put(queue, target(name))
    taken = every(work)
    [again] = work.take("example.com", NOW, 1, besides={taken[0].id})
    assert again.recipients == (taken[1],)
    assert len(work.take("example.com", NOW, 2)) == 2
    assert work.due(NOW, 10, besides={"example.com"}) == []
    assert work.next_due(besides={"example.com"}) is None


def test_a_call_takes_a_bounded_number_of_recipients(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, *(target(f"user{number}") for number in range(30)))
    with mock.patch.object(work_module, "TAKE_AT_MOST", 20):
        [first] = work.take("example.com", NOW, 10)
        [rest] = work.take("example.com", NOW, 10, besides={each.id for each in first.recipients})
    assert (len(first.recipients), len(rest.recipients)) == (20, 10)


def test_the_longest_waiting_destination_comes_first(tmp_path: Path) -> None:
    for at in (3, 1, 2):
        put(open_queue(tmp_path / "queue", now=NOW + at), target("x", f"d{at}.example"))
    _queue, work = open_work(tmp_path / "queue")
    assert work.due(NOW + 10, 10) == ["d1.example", "d2.example", "d3.example"]
    assert work.due(NOW + 10, 2, besides={"d1.example"}) == ["d2.example", "d3.example"]
    assert work.due(NOW + 1, 10) == ["d1.example"]
    assert work.next_due(besides={"d1.example"}) == NOW + 2


def test_a_commit_of_another_process_is_noticed(tmp_path: Path) -> None:
    _queue, work = open_work(tmp_path / "queue")
    work.changed()
    assert not work.changed()
    put(open_queue(tmp_path / "queue"))
    assert work.changed()
    assert not work.changed()


def test_one_process_works_at_a_time(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    with pytest.raises(QueueBusy):
        QueueWork(queue, report_target)
    work.close()
    QueueWork(queue, report_target).close()


def test_a_missing_or_shorter_file_is_told(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    [found] = work.take("example.com", NOW, 1)
    os.truncate(queue.spool.directory / found.message.name, found.message.start)
    with pytest.raises(MessageMissing):
        work.open(found.message)
    queue.spool.remove(found.message.name)
    with pytest.raises(MessageMissing):
        work.open(found.message)


# --- results


def test_a_message_goes_with_its_last_recipient_and_its_file_behind_a_sync(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    spooled = put(queue, target("a"), target("b"))
    first, second = every(work)
    work.results([(first, SENT)], NOW)
    assert names(queue) == {spooled.name}
    assert work.sync() == 0
    work.results([(second, SENT)], NOW)
    assert names(queue) == set()
    assert (queue.spool.directory / spooled.name).exists()
    assert work.sync() == 1
    assert not (queue.spool.directory / spooled.name).exists()
    assert work.sync() == 0
    assert work.next_due() is None
    assert queue.rows.read("SELECT * FROM hop") == []


def test_a_deferred_recipient_waits_by_the_schedule_until_it_expires(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, sender="")
    now, waits = NOW, []
    while (due := work.next_due()) is not None:
        waits.append(due - now)
        now = due
        assert work.take("example.com", now - 1, 10) == []
        work.results([(one(work, now=now), LATER)], now)
    assert waits[:7] == [0, 300, 600, 1200, 2400, 3600, 3600]
    assert now == NOW + DAY
    assert names(queue) == set()


def test_the_last_reply_is_kept(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    work.results([(one(work), LATER)], NOW)
    after = one(work, now=NOW + 300)
    assert (after.hop, after.reply, after.tries) == ("mx.example.com", "450 4.2.0 greylisted", 1)


def test_too_many_recipients_are_tried_again_at_once(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, target("a"), target("b"))
    first, second = every(work)
    again = outcome_of_reply("rcpt", 452, ["too many"], others_accepted=True)
    work.results([(first, SENT), (second, again)], NOW)
    assert [each.id for each in every(work)] == [second.id]


def test_results_of_what_was_dropped_or_has_come_twice_change_nothing(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    recipient = one(work)
    assert len(work.results([(recipient, NEVER), (recipient, NEVER)], NOW)) == 1
    assert work.results([(recipient, NEVER)], NOW) == []
    assert len(every(work, "reports")) == 1


def test_an_id_is_never_used_again(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    before = one(work)
    work.results([(before, SENT)], NOW)
    put(queue)
    work.results([(before, NEVER)], NOW)
    assert one(work).id > before.id


def test_a_recipient_that_changes_while_a_report_is_written_is_looked_at_again(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    recipient = one(work)
    dropping = open_queue(tmp_path / "queue")
    written = work._write_reports

    def drop(*arguments: object) -> list[Spooled]:
        dropping.rows.write(lambda connection: connection.execute("DELETE FROM recipient"))
        return written(*arguments)  # type: ignore[arg-type]

    with mock.patch.object(work, "_write_reports", drop):
        assert work.results([(recipient, NEVER)], NOW) == []
    assert every(work, "reports") == []
    assert len(os.listdir(queue.spool.directory)) == 1


# --- hops


def test_a_dead_hop_moves_one_row(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, target("first"))
    for number in range(50):
        put(queue, target(f"user{number}"))
    put(queue, target("x", "example.net"))
    untouched = every(work)[1:]
    count = len(queue.rows.read("SELECT 1 FROM recipient WHERE due = :due", due=NOW))
    work.results([(every(work)[0], DOWN)], NOW)
    assert len(queue.rows.read("SELECT 1 FROM recipient WHERE due = :due", due=NOW)) == count - 1
    assert work.due(NOW + 299, 10) == ["example.net"]
    assert work.next_due(besides={"example.net"}) == NOW + 300
    [hop] = work.hops()
    assert (hop.destination, hop.until, hop.failures, hop.reply) == ("example.com", NOW + 300, 1, "connection refused")
    assert [each.id for each in every(work, now=NOW + 300)][:50] == [each.id for each in untouched]


def test_a_hop_waits_longer_each_time_and_connections_side_by_side_count_once(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    for name in "abcd":
        put(queue, target(name))
    now, waits = NOW, []
    for _ in range(6):
        for recipient in every(work, now=now):
            work.results([(recipient, DOWN)], now)
        [hop] = work.hops()
        waits.append(hop.until - now)
        now = hop.until
    assert waits == [300, 600, 1200, 2400, 3600, 3600]
    assert all(each.tries == 0 for each in every(work, now=now))


def test_a_hop_that_answers_is_alive(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, target("a"))
    work.results([(one(work), DOWN)], NOW)
    put(queue, target("b"))
    assert work.due(NOW, 10) == []
    work.results([(one(work, now=NOW), LATER)], NOW)
    assert work.hops() == []
    assert work.next_due() == NOW + 300


def test_new_mail_for_a_dead_hop_waits_with_the_rest(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    work.results([(one(work), DOWN)], NOW)
    put(queue)
    assert work.next_due() == NOW + 300


def test_a_recipient_behind_a_dead_hop_is_reported_late_and_expires(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    for name in "abc":
        put(queue, target(name))
    now = NOW
    actions: list[tuple[int, int]] = []
    while work.due(now, 10, besides={"reports"}) or now < NOW + 6 * DAY:
        first = next(iter(every(work, now=now)), None)
        if first is not None and work.due(now, 10, besides={"reports"}):
            work.results([(first, DOWN)], now)
        reports = work.overdue(now)
        if reports:
            actions.append((now - NOW, len(reports)))
        now += 600
    kinds = [text for row in every(work, "reports", now=now) for text in _subjects(queue, row)]
    assert kinds.count("Delayed Mail (still being retried)") == 3
    assert kinds.count("Undelivered Mail Returned to Sender") == 3
    assert actions[0][0] == 4 * 3600
    assert work.due(now, 10, besides={"reports"}) == []


def _subjects(queue: MailQueue, recipient: Recipient) -> list[str]:
    [(name, start)] = queue.rows.read("SELECT name, start FROM message WHERE id = :id", id=recipient.message)
    octets = (queue.spool.directory / str(name)).read_bytes()[int(start or 0) :]
    return [str(email.message_from_bytes(octets)["Subject"])]


def test_what_is_being_tried_does_not_expire_meanwhile(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, target("a"))
    put(queue, target("b"))
    first, second = every(work)
    late = NOW + 5 * DAY + 1
    work.results([(first, DOWN)], late - 10)
    with mock.patch.object(work_module, "OVERDUE_AT_ONCE", 1):
        work.overdue(late, besides={second.id})
    assert [each.id for each in every(work, now=late)] == [second.id]


# --- reports


def test_a_failure_is_reported_in_the_same_transaction(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    failed = put(queue, target("a"), target("b"), text=b"Subject: mine\r\n\r\nbody\r\n")
    reports = work.results([(each, NEVER) for each in every(work)], NOW)
    report = read_report(queue, reports)
    assert report["To"] == "alice@example.org"
    assert "5.1.1 no such user" in str(report)
    assert "Subject: mine" in str(report)
    assert str(report).count("Final-Recipient") == 2
    [recipient] = every(work, "reports")
    assert recipient.target == report_target("alice@example.org")
    [found] = work.take("reports", NOW, 1)
    assert found.message.envelope == reports[0].envelope
    assert (found.message.envelope.sender, found.message.envelope.parent) == ("", failed.name)
    assert names(queue) == {reports[0].name}


def test_a_report_about_many_recipients_is_split(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, *(target(f"user{number}") for number in range(7)))
    with mock.patch.object(changes, "MAX_RECIPIENTS", 3):
        assert len(work.results([(each, NEVER) for each in every(work)], NOW)) == 3


@pytest.mark.parametrize(
    ("sender", "values"),
    [
        pytest.param("", {}, id="null-sender"),
        pytest.param("alice@example.org", {"notify": "NEVER"}, id="never"),
        pytest.param("alice@example.org", {"notify": "SUCCESS,DELAY"}, id="not-failure"),
        pytest.param("alice@example.org", {"backscatter": True}, id="backscatter"),
        pytest.param("alice@nowhere.example", {}, id="leads-nowhere"),
    ],
)
def test_who_is_not_to_hear_of_a_failure_gets_no_report(
    tmp_path: Path, sender: str, values: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, target(**values), sender=sender)
    with caplog.at_level("INFO"):
        assert work.results([(one(work), NEVER)], NOW) == []
    assert names(queue) == set()
    assert "bob@example.com" in caplog.text or "leads nowhere" in caplog.text


def test_a_report_that_fails_is_not_reported(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    work.results([(one(work), NEVER)], NOW)
    assert work.results([(one(work, "reports"), NEVER)], NOW) == []
    assert names(queue) == set()


@pytest.mark.parametrize(
    ("outcome", "kind", "subject"),
    [
        pytest.param(SENT, "out", "Successful Mail Delivery Report", id="relayed"),
        pytest.param(SENT_DSN, "out", None, id="passed-on"),
        pytest.param(delivered_here(), "here", "Successful Mail Delivery Report", id="delivered"),
    ],
)
def test_success_is_reported_on_request(tmp_path: Path, outcome: Outcome, kind: str, subject: str | None) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, target("asked", notify="SUCCESS", kind=kind), target("silent", kind=kind))
    reports = work.results([(each, outcome) for each in every(work)], NOW)
    assert (read_report(queue, reports)["Subject"] if reports else None) == subject
    assert len(reports) == (subject is not None)


def test_a_delay_is_reported_once(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    reports, now = [], NOW
    while now < NOW + DAY:
        reports += work.results([(one(work, now=now), LATER)], now)
        now = work.next_due(besides={"reports"}) or 0
    assert read_report(queue, reports)["Subject"] == "Delayed Mail (still being retried)"


def test_a_message_without_its_file_is_still_reported(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    spooled = put(queue)
    recipient = one(work)
    queue.spool.remove(spooled.name)
    assert len(work.results([(recipient, no_such_domain("example.com"))], NOW)) == 1


def test_a_report_that_cannot_be_written_leaves_the_recipient(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue)
    with mock.patch.object(disk, "sync", side_effect=OSError(errno.EIO, "broken")), pytest.raises(StorageFailure):
        work.results([(one(work), NEVER)], NOW)
    assert len(os.listdir(queue.spool.directory)) == 1
    assert len(work.results([(one(work), NEVER)], NOW)) == 1


# --- tokens


def test_a_delivery_here_and_its_token_are_one_decision(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    put(queue, target("a", kind="here"), target("b", kind="here"))
    first, second = every(work)
    work.results([(first, delivered_here())], NOW, token="copy")
    assert queue.decided("copy")
    assert not queue.decided("given up")
    with pytest.raises(TokenRefused):
        work.results([(second, delivered_here())], NOW, token="given up")
    assert [each.id for each in every(work)] == [second.id]


# --- the end of messages


def test_files_stay_while_their_end_could_be_undone(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    spooled = put(queue)
    work.results([(one(work), SENT)], NOW)
    with mock.patch.object(disk, "sync", side_effect=OSError(errno.EIO, "broken")), pytest.raises(StorageFailure):
        work.sync()
    assert (queue.spool.directory / spooled.name).exists()
    assert queue.lock.is_marked()
    other = open_queue(tmp_path / "queue")
    assert other.lock.is_marked()
    written = other.write(envelope(), [target()], Content(b"x"))
    with mock.patch.object(disk, "sync", side_effect=OSError(errno.EIO, "broken")), pytest.raises(StorageFailure):
        other.accept([written])
    size = os.path.getsize(tmp_path / "queue/queue.sqlite-wal")
    rewritten: list[int] = []
    whole = disk.write
    with mock.patch.object(
        disk, "write", lambda fd, data, offset: (rewritten.append(len(data)), whole(fd, data, offset))
    ):
        other.accept([written])
    assert sum(rewritten) == size
    assert not queue.lock.is_marked()
    assert work.sync() == 1
    assert not (queue.spool.directory / spooled.name).exists()


def test_a_sweep_removes_old_files_without_rows_alone(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    kept = put(queue)
    old, new = (queue.write(envelope(), [target()], Content(b"x")) for _ in range(2))
    other = queue.spool.directory / "README"
    other.write_bytes(b"")
    for path, age in ((kept.name, 7200), (old.name, 3700), (new.name, 3500), (other.name, 99999)):
        os.utime(queue.spool.directory / path, (NOW - age, NOW - age))
    assert work.sweep(NOW) == [old.name]
    assert set(os.listdir(queue.spool.directory)) == {kept.name, new.name, "README"}


def test_a_sweep_waits_for_the_end_of_a_message_to_be_safe(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    spooled = put(queue)
    os.utime(queue.spool.directory / spooled.name, (0, 0))
    work.results([(one(work), SENT)], NOW)
    with mock.patch.object(disk, "sync", side_effect=OSError(errno.EIO, "broken")), pytest.raises(StorageFailure):
        work.sweep(NOW)
    assert (queue.spool.directory / spooled.name).exists()
    assert work.sweep(NOW) == [spooled.name]


def test_a_sweep_forgets_what_has_served_and_never_a_committed_token(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    queue.accept([], "committed", sent=[("alice", 1)])
    queue.decided("refused")
    put(queue)
    work.results([(one(work), DOWN)], NOW)
    queue.rows.write(lambda connection: connection.execute("DELETE FROM recipient"))
    queue.rows.write(lambda connection: connection.execute("UPDATE hop SET due = NULL, ready = NULL"))
    work.sweep(NOW + 100)
    assert len(queue.rows.read("SELECT * FROM decision")) == 2
    assert len(work.hops()) == 1
    work.sweep(NOW + 31 * DAY)
    assert queue.rows.read("SELECT token FROM decision") == [("committed",)]
    assert queue.sent("alice", 0) == 0
    assert work.hops() == []


def test_a_worker_killed_at_any_point_leaves_a_result_whole_or_undone(tmp_path: Path) -> None:
    states = set()
    for at in range(1, 30):
        directory = tmp_path / f"queue{at}"
        queue = open_queue(directory)
        first = put(queue, target("fails"))
        queue.close()

        def run(directory: Path = directory) -> None:
            _queue, work = open_work(directory)
            work.results([(one(work), NEVER)], NOW)
            work.sync()

        reached = killed(run, at)
        queue, work = open_work(directory)
        waiting, reports = len(every(work)), len(every(work, "reports"))
        assert (waiting, reports) in {(1, 0), (0, 1)}
        assert names(queue) <= set(os.listdir(queue.spool.directory))
        states.add((waiting, reports, reached))
        for name in os.listdir(queue.spool.directory):
            os.utime(queue.spool.directory / name, (0, 0))
        work.sweep(NOW)
        assert names(queue) == set(os.listdir(queue.spool.directory))
        if waiting:
            work.results([(one(work), NEVER)], NOW)
        assert first.name not in names(queue)
        if not reached:
            assert at > 5
            break
    assert states == {(1, 0, True), (0, 1, True), (0, 1, False)}
