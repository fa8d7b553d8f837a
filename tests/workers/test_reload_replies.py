"""What the master makes of its workers' replies to the orders of a reload."""

from __future__ import annotations

from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.worker_messages import RequestFailed
from mailserver.net.workers.reload import faults_of, lines_of
from mailserver.net.workers.worker_record import Result


def prepared(*faults: str) -> Json:
    return {"faults": list(faults)}


def committed(*lines: str) -> Json:
    return {"lines": list(lines)}


def test_any_worker_may_refuse_and_each_reason_stands_once() -> None:
    assert faults_of({0: prepared(), 1: None, 2: prepared()}) == []
    replies: dict[int, Result] = {
        0: prepared("no such back end"), 1: prepared("no such back end"), 2: RequestFailed(7, "a bug")
    }  # fmt: skip
    assert faults_of(replies) == ["no such back end", "a worker cannot take it up: a bug"]


def test_a_malformed_reply_is_a_refusal() -> None:
    [fault] = faults_of({0: {"lines": []}})
    assert fault.startswith("a worker cannot take it up: its reply is malformed: ")


def test_a_worker_that_does_not_say_that_it_took_it_up_is_replaced() -> None:
    replies: dict[int, Result] = {
        0: committed("a", "b"), 1: committed("b"), 2: RequestFailed(7, "late"), 3: None, 5: prepared()
    }  # fmt: skip
    lines, failed = lines_of(replies)
    assert lines == ["a", "b", "a worker did not take it up, and is replaced: late"]
    assert failed == [2, 3, 5]


def test_what_a_worker_did_is_one_line_on_a_terminal() -> None:
    lines, _failed = lines_of({0: committed("a\x1b[2J\nb")})
    assert lines == ["a\\x1b[2J; b"]
