"""A process is killed at every named point of a day's steps; the next one finds what it must (no acknowledged
change is lost, none is half done, no UID is used twice, nothing deleted comes back, no dead lock is waited for).
"""

from __future__ import annotations

import os
import shutil

import pytest

from tests.store.aftermath import check_aftermath
from tests.store.crash import Visit, run_start, run_workload, worth_killing
from tests.store.disk import scratch
from tests.store.workload import STEPS, WAITING, Violation, expectations

MUST_BE_VISITED = {
    "append one": "delivery.",
    "deliver several": "delivery.",
    "store": "store.",
    "copy": "copy.",
    "move": "move.",
    "expunge": "expunge.",
    "replace within": "replace.",
    "replace elsewhere": "replace.",
    "rename": "rename.",
    "delete": "delete.",
    "publish": "delivery.",
}


@pytest.fixture(scope="module")
def expected():
    return expectations()


@pytest.fixture(scope="module")
def visits(expected):
    with scratch() as base:
        log = run_workload(os.path.join(base, "mail"), os.path.join(base, "log"))
    assert not log.error, log.error
    assert len(log.pictures) == len(STEPS) + 1
    for picture, wanted, step in zip(log.pictures[1:], expected[1:], STEPS, strict=True):
        if step.name not in WAITING:
            assert picture.canonical() == wanted.canonical(), step.name
    return log.visits


def test_every_step_has_its_points(visits):
    for number, step in enumerate(STEPS):
        points = {visit.point for visit in visits if visit.step == number}
        assert points, f"no named point in {step.name!r}"
        if step.name in MUST_BE_VISITED:
            assert any(point.startswith(MUST_BE_VISITED[step.name]) for point in points), (step.name, points)


def test_killed_at_every_point(visits, expected):
    failures = []
    kills = worth_killing(visits)
    with scratch() as base:
        for number, visit in enumerate(kills):
            root, log_path = os.path.join(base, f"mail{number}"), os.path.join(base, f"log{number}")
            log = run_workload(root, log_path, kill_at=visit)
            if log.done != visit.step:
                failures.append(f"{describe(visit)}: not killed there, but after step {log.done} {log.error}")
            try:
                check_aftermath(root, log, expected, STEPS)
            except Violation as violation:
                failures.append(f"{describe(visit)}: {violation}")
            except Exception as error:
                failures.append(f"{describe(visit)}: {type(error).__name__}: {error}")
            shutil.rmtree(root, ignore_errors=True)
    assert {kill.point for kill in kills} == {visit.point for visit in visits}
    assert {kill.step for kill in kills} == {visit.step for visit in visits}
    assert not failures, f"{len(failures)} of {len(kills)} kills\n" + "\n".join(failures)


TAKE_SEVERAL_STEPS = (
    ("append a group", "delivery.after-rename", 1),
    ("copy", "copy.after-link", 0),
    ("move", "move.after-rename", 1),
    ("replace within", "replace.before-unlink", 0),
    ("replace elsewhere", "delivery.before-uidlist", 0),
    ("rename", "rename.after-rename", 0),
    ("publish", "delivery.after-rename", 0),
    ("publish decided", "delivery.after-rename", 0),
    ("prepare undecided", "intent.after-write", 0),
    ("rename INBOX", "intent.after-write", 0),
    ("delete", "delete.", 0),
)


@pytest.mark.parametrize(("name", "point", "nth"), TAKE_SEVERAL_STEPS)
def test_killed_again_while_the_next_start_mends_it(visits, expected, name, point, nth):
    number = [step.name for step in STEPS].index(name)
    first = next(
        visit for visit in visits if visit.step == number and visit.point.startswith(point) and visit.nth == nth
    )
    failures = []
    with scratch() as base:
        root = os.path.join(base, "mail")
        log = run_workload(root, os.path.join(base, "log"), kill_at=first)
        assert log.done == number
        shutil.copytree(root, os.path.join(base, "dry"))
        passed = run_start(os.path.join(base, "dry"), os.path.join(base, "dry.log"))
        if name != "delete":
            assert any(visit.point.startswith("recovery.") for visit in passed), "there was nothing to mend"
        for count, second in enumerate(visit for visit in passed if visit.nth == 0):
            again = os.path.join(base, f"mail{count}")
            shutil.copytree(root, again)
            run_start(again, os.path.join(base, f"log{count}"), kill_at=second)
            try:
                check_aftermath(again, log, expected, STEPS)
            except Violation as violation:
                failures.append(f"{describe(first)}, then in the start at {second.point}: {violation}")
    assert not failures, "\n".join(failures)


def describe(visit: Visit) -> str:
    name = STEPS[visit.step].name if visit.step >= 0 else "opening"
    return f"in {name!r} at {visit.point} ({visit.nth})"
