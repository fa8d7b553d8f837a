"""What an administrator sees and changes, and the rebuild of rows."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from mailserver.queue import administration as administration_module
from mailserver.queue.administration import Administration
from mailserver.queue.interfaces import Content
from mailserver.queue.model import NotInQueue, QueueBusy, QueueDamaged
from mailserver.queue.rebuild import rebuild
from mailserver.queue.selection import Selection
from tests.queue.queues import NOW, SETTINGS, envelope, killed, names, open_queue, put, target
from tests.queue.test_work import DAY, DOWN, LATER, NEVER, SENT, every, one, open_work


def fill(directory: Path) -> None:
    queue = open_queue(directory)
    put(queue, target("a"), target("b", "example.net"), sender="alice@example.org")
    put(queue, target("a"), sender="")
    put(queue, target("c", "example.net"), sender="bob@example.org", received=NOW - 50)
    queue.close()


def addresses(administration: Administration, **wanted: object) -> list[list[str]]:
    return [[each.target.address for each in one.recipients] for one in administration.list(Selection(**wanted))]  # type: ignore[arg-type]


# --- looking


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({}, [0, 1, 2], id="all"),
        pytest.param({"sender": "alice@example.org"}, [0], id="sender"),
        pytest.param({"sender": ""}, [1], id="null-sender"),
        pytest.param({"address": "a@example.com"}, [0, 1], id="address"),
        pytest.param({"destination": "example.net"}, [0, 2], id="destination"),
        pytest.param({"destination": "example.net", "sender": "bob@example.org"}, [2], id="both"),
        pytest.param({"destination": "example.net", "address": "a@example.com"}, [], id="of-one-recipient"),
        pytest.param({"state": "held"}, [], id="state"),
        pytest.param({"sender": "' OR 1=1 --"}, [], id="hostile"),
    ],
)
def test_messages_are_listed_by_what_is_given(tmp_path: Path, wanted: dict[str, str], expected: list[int]) -> None:
    fill(tmp_path / "queue")
    everything = [["a@example.com", "b@example.net"], ["a@example.com"], ["c@example.net"]]
    assert addresses(Administration(open_queue(tmp_path / "queue")), **wanted) == [everything[at] for at in expected]


def test_pages_follow_each_other(tmp_path: Path) -> None:
    fill(tmp_path / "queue")
    administration = Administration(open_queue(tmp_path / "queue"))
    pages, after = [], 0
    while page := administration.list(after=after, limit=2):
        pages.append(len(page))
        after = page[-1].message.id
    assert pages == [2, 1]


def test_a_message_is_shown_by_its_name(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = put(queue)
    administration = Administration(queue)
    assert administration.show(spooled.name).message.envelope == spooled.envelope
    with pytest.raises(NotInQueue):
        administration.show("another")


def test_the_size_is_counted_by_destination(tmp_path: Path) -> None:
    fill(tmp_path / "queue")
    queue, work = open_work(tmp_path / "queue")
    administration = Administration(queue)
    work.results([(every(work)[0], DOWN)], NOW)
    administration.hold(Selection(address="b@example.net"))
    found = administration.statistics()
    assert (found.messages, found.recipients, found.held, found.oldest) == (3, 4, 1, NOW - 50)
    assert found.octets == 3 * len(b"Subject: hi\r\n\r\ntext\r\n")
    rows = [(each.destination, each.recipients, each.held, each.oldest) for each in found.destinations]
    assert rows == [("example.com", 2, 0, NOW), ("example.net", 2, 1, NOW - 50)]
    assert [each.hop is not None and each.hop.failures for each in found.destinations] == [1, False]
    assert len(administration.statistics(limit=1).destinations) == 1


def test_an_empty_queue_has_no_size(tmp_path: Path) -> None:
    found = Administration(open_queue(tmp_path / "queue")).statistics()
    assert (found.messages, found.recipients, found.held, found.octets, found.oldest) == (0, 0, 0, 0, None)


# --- changing


def test_what_is_held_is_not_due_until_it_is_released(tmp_path: Path) -> None:
    fill(tmp_path / "queue")
    queue, work = open_work(tmp_path / "queue", now=NOW + 10)
    administration = Administration(queue)
    assert administration.hold(Selection(destination="example.com")) == 2
    assert administration.hold(Selection(destination="example.com")) == 0
    assert work.due(NOW, 10) == ["example.net"]
    assert every(work) == []
    assert addresses(administration, state="held") == [["a@example.com", "b@example.net"], ["a@example.com"]]
    assert administration.release(Selection(address="a@example.com", sender="")) == 1
    assert one(work, now=NOW + 10).due == NOW + 10
    assert "example.com" in work.due(NOW + 10, 10)


def test_a_result_of_what_was_held_meanwhile_is_recorded(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    administration = Administration(queue)
    put(queue, target("a"), target("b"), target("c"))
    sent, later, never = every(work)
    administration.hold(Selection())
    assert len(work.results([(sent, SENT), (later, LATER), (never, NEVER)], NOW)) == 1
    [left] = administration.list(Selection(destination="example.com"))[0].recipients
    assert (left.id, left.state, left.tries) == (later.id, "held", 1)
    assert work.due(NOW + DAY, 10) == ["reports"]


def test_retry_contacts_a_dead_hop_at_once_and_remembers_its_failures(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue", now=NOW + 20)
    put(queue)
    work.results([(one(work, now=NOW + 20), DOWN)], NOW)
    assert work.due(NOW + 20, 10) == []
    assert Administration(queue).retry(Selection(destination="example.com")) == 1
    assert work.due(NOW + 20, 10) == ["example.com"]
    work.results([(one(work, now=NOW + 20), DOWN)], NOW + 20)
    assert work.hops()[0].until == NOW + 20 + 600


def test_retry_contacts_a_dead_hop_for_recipients_that_were_not_tried(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    for name in "ab":
        put(queue, target(name))
    first, second = every(work)
    work.results([(first, DOWN)], NOW)
    assert Administration(queue).retry(Selection(address=second.target.address)) == 1
    assert work.due(NOW, 10) == ["example.com"]
    assert [each.id for each in every(work)] == [second.id]


def test_retry_leaves_held_recipients(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue", now=NOW + 20)
    put(queue)
    Administration(queue).hold(Selection())
    assert Administration(queue).retry(Selection()) == 0
    assert work.next_due() is None


def test_what_is_dropped_is_gone_without_a_report_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "queue")
    queue, work = open_work(tmp_path / "queue")
    administration = Administration(queue)
    assert administration.drop(Selection(destination="example.com")) == 2
    assert addresses(administration) == [["b@example.net"], ["c@example.net"]]
    assert set(os.listdir(queue.spool.directory)) == names(queue)
    assert work.due(NOW, 10) == ["example.net"]
    assert "destination 'example.com'" in caplog.text


def test_a_message_is_changed_by_its_name(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    first, second = put(queue, target("a"), target("b")), put(queue, target("a"))
    administration = Administration(queue)
    assert administration.hold(Selection(name=first.name, address="a@example.com")) == 1
    assert administration.drop(Selection(name=first.name)) == 2
    assert administration.drop(Selection(name="unknown")) == 0
    assert names(queue) == {second.name}


def test_many_are_changed_in_transactions_of_a_bounded_size(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    for _ in range(5):
        put(queue, *(target(f"user{number}") for number in range(5)))
    commits = []
    queue.rows._writer.set_commit_hook(lambda: bool(commits.append(1)))
    with mock.patch.object(administration_module, "AT_ONCE", 10):
        assert Administration(queue).drop(Selection()) == 25
    assert len(commits) == 3
    assert os.listdir(queue.spool.directory) == []


# --- the rebuild


def test_rows_are_made_anew_from_the_files(tmp_path: Path) -> None:
    queue, work = open_work(tmp_path / "queue")
    first = put(queue, target("a", notify="NEVER"), target("b", orcpt="rfc822;b"), envid="x")
    second = put(queue, target("c"), sender="")
    unaccepted = queue.write(envelope(), [target("d")], Content(b"x"))
    queue.accept([], "committed", sent=[("alice", 4)])
    queue.decided("refused")
    work.results([(every(work)[0], SENT)], NOW)
    before = [each.message.envelope for each in Administration(queue).list()]
    work.close()
    queue.close()
    found = rebuild(tmp_path / "queue", SETTINGS, lambda: NOW + 5)
    assert (found.messages, found.unreadable, found.tokens_lost) == (3, (), False)
    queue, work = open_work(tmp_path / "queue")
    assert names(queue) == {first.name, second.name, unaccepted.name}
    assert [each.message.envelope for each in Administration(queue).list()][:2] == before
    assert [each.target for each in every(work, now=NOW + 5)] == [*first.targets, *second.targets, *unaccepted.targets]
    assert queue.decided("committed")
    assert not queue.decided("refused")
    assert not queue.decided("unknown")
    assert queue.sent("alice", 0) == 4
    assert found.kept is not None
    assert found.kept.exists()


@pytest.mark.parametrize("damage", ["gone", "text"])
def test_without_the_old_rows_copies_are_rather_kept_than_lost(tmp_path: Path, damage: str) -> None:
    queue = open_queue(tmp_path / "queue")
    spooled = put(queue, token="committed")
    queue.close()
    path = tmp_path / "queue/queue.sqlite"
    path.unlink() if damage == "gone" else path.write_bytes(b"hello" * 5000)
    with pytest.raises(QueueDamaged):
        open_queue(tmp_path / "queue")
    found = rebuild(tmp_path / "queue", SETTINGS, lambda: NOW)
    assert (found.tokens_lost, found.kept is None) == (True, damage == "gone")
    queue = open_queue(tmp_path / "queue")
    assert names(queue) == {spooled.name}
    assert queue.decided("committed")
    assert not open_queue(tmp_path / "queue", now=NOW + 31 * DAY).decided("later")


def test_files_that_cannot_be_read_are_kept_from_the_sweep(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    whole, torn, other = (put(queue) for _ in range(3))
    queue.close()
    os.truncate(queue.spool.directory / torn.name, torn.start + 1)
    (queue.spool.directory / other.name).write_bytes(b"no line of ours")
    found = rebuild(tmp_path / "queue", SETTINGS)
    assert set(found.unreadable) == {torn.name, other.name}
    assert set(os.listdir(tmp_path / "queue/unreadable")) == {torn.name, other.name}
    assert names(open_queue(tmp_path / "queue")) == {whole.name}


def test_a_rebuild_waits_for_the_end_of_the_process_that_sends(tmp_path: Path) -> None:
    _queue, work = open_work(tmp_path / "queue")
    with pytest.raises(QueueBusy):
        rebuild(tmp_path / "queue", SETTINGS)
    work.close()
    rebuild(tmp_path / "queue", SETTINGS)


def test_a_process_that_has_the_old_rows_open_takes_the_new_ones(tmp_path: Path) -> None:
    queue = open_queue(tmp_path / "queue")
    queue.rows.changed()
    first = put(queue)
    rebuild(tmp_path / "queue", SETTINGS)
    second = put(queue)
    assert names(open_queue(tmp_path / "queue")) == {first.name, second.name} == names(queue)
    queue.rows.changed()
    rebuild(tmp_path / "queue", SETTINGS)
    assert queue.rows.changed()
    assert names(queue) == {first.name, second.name}


def test_a_rebuild_that_is_killed_at_any_point_is_made_again(tmp_path: Path) -> None:
    points = 0
    for at in range(1, 10):
        directory = tmp_path / f"queue{at}"
        queue = open_queue(directory)
        spooled = put(queue)
        queue.close()
        reached = killed(lambda directory=directory: rebuild(directory, SETTINGS), at)  # type: ignore[misc]
        rebuild(directory, SETTINGS)
        assert names(open_queue(directory)) == {spooled.name}
        if not reached:
            break
        points += 1
    assert points == 2
