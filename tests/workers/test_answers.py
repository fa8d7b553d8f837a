"""What the master makes of the answers of its workers to a reload."""

from __future__ import annotations

from mailserver.net.workers.reload_results import faults, outcome


def test_any_may_refuse_and_each_reason_is_told_once() -> None:
    assert faults({0: {"faults": []}, 1: None, 2: {"faults": []}}) == []
    said = faults({0: {"faults": ["no such back end"]}, 1: {"faults": ["no such back end"]}, 2: {"error": "a bug"}})
    assert said == ["no such back end", "a worker cannot take it up: a bug"]


def test_who_has_not_said_that_it_took_it_up_is_behind() -> None:
    answers = {0: {"lines": ["a", "b"]}, 1: {"lines": ["b"]}, 2: {"error": "late"}, 3: None, 5: {"faults": []}}
    lines, behind = outcome(answers)
    assert lines == ["a", "b", "a worker did not take it up, and is replaced: late"]
    assert behind == [2, 3, 5]
