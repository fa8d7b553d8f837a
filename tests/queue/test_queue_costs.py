"""The costs of questions to a large queue: by the plans of SQLite and the rows that they read, not by time."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from mailserver.queue import insertion, statements
from mailserver.queue.interfaces import Spooled
from mailserver.queue.mail_queue import MailQueue
from mailserver.queue.outcome import Outcome
from mailserver.queue.work import QueueWork
from tests.queue.queues import NOW, envelope, open_queue, target
from tests.queue.test_work import DOWN, LATER, SENT, report_target

SMALL, LARGE = 300, 6000


def fill(queue: MailQueue, count: int) -> None:
    """Half of the messages for one destination, the rest for many."""

    def body(connection: apsw.Connection) -> None:
        for number in range(count):
            destination = f"d{number}.example" if number % 2 else "big.example"
            to = (target(f"user{number}", destination),)
            insertion.insert(connection, Spooled(f"{number:020x}", 300, 1000, envelope(), to), queue.settings, NOW)

    queue.rows.write(body)


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[QueueWork, QueueWork]]:
    found = []
    for count in (SMALL, LARGE):
        queue = open_queue(tmp_path_factory.mktemp("queue"))
        fill(queue, count)
        found.append(QueueWork(queue, report_target))
    yield found[0], found[1]
    for work in found:
        work.close()


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        pytest.param(statements.DUE, {"now": NOW, "count": 10}, id="due"),
        pytest.param(statements.NEXT_DUE, {"count": 10}, id="next-due"),
        pytest.param(statements.TAKE, {"now": NOW, "destination": "big.example"}, id="take"),
        pytest.param(statements.OVERDUE, {"now": NOW, "destination": "big.example"}, id="overdue"),
        pytest.param(statements.DEAD, {"now": NOW}, id="dead"),
        pytest.param(statements.FIRST_DUE, {"destination": "big.example"}, id="first-due"),
        pytest.param(statements.RECIPIENT, {"id": 1}, id="recipient"),
        pytest.param(statements.REMOVE_FINISHED, {"id": 1}, id="finished"),
        pytest.param(statements.HAS_NAME, {"name": "x"}, id="name"),
        pytest.param(statements.SENT, {"user": "x", "hour": 0}, id="sent"),
        pytest.param(statements.DECISION, {"token": "x"}, id="decision"),
    ],
)
def test_no_question_reads_a_whole_table_or_sorts(
    works: tuple[QueueWork, QueueWork], statement: str, values: dict[str, str | int]
) -> None:
    plan = [str(row[3]) for row in works[1]._rows.read(f"EXPLAIN QUERY PLAN {statement}", **values)]
    assert plan
    for step in plan:
        assert "TEMP B-TREE" not in step
        assert not step.startswith("SCAN") or " INDEX hop_ready" in step, plan


def steps(work: QueueWork, question: str) -> int:
    """The instructions of SQLite's virtual machine that a question takes."""
    count = 0

    def step() -> bool:
        nonlocal count
        count += 1
        return False

    rows = work._rows
    rows._reader.set_progress_handler(step, 1)
    rows._writer.set_progress_handler(step, 1)
    try:
        match question:
            case "due":
                assert len(work.due(NOW, 10)) == 10
            case "next due":
                assert work.next_due() == NOW
            case "take":
                assert len(work.take("big.example", NOW, 20)) == 20
            case "overdue":
                assert work.overdue(NOW) == []
            case _:
                outcomes: dict[str, Outcome] = {"sent": SENT, "deferred": LATER, "hop failed": DOWN}
                [found] = work.take("big.example", NOW, 1)
                work.results([(found.recipients[0], outcomes[question])], NOW)
    finally:
        rows._reader.set_progress_handler(None)
        rows._writer.set_progress_handler(None)
    return count


@pytest.mark.parametrize("question", ["due", "next due", "take", "overdue", "sent", "deferred", "hop failed"])
def test_the_cost_does_not_grow_with_the_queue(works: tuple[QueueWork, QueueWork], question: str) -> None:
    small, large = (steps(work, question) for work in works)
    assert large <= small * 1.2 + 20, f"{small} steps, and {large} with twenty times as many messages"
