"""Order of the test modules, and number of the processes that run them."""

from __future__ import annotations

import os

import pytest

from tests import scheduling


def of_folder(folder: str, modules: int) -> list[str]:
    return [f"tests/{folder}/test_{number:02}.py::test_{each}" for number in range(modules) for each in "ab"]


def test_every_module_starts_once() -> None:
    tests = [
        *of_folder("imap", 5),
        *of_folder("live", 5),
        "tests/test_lines.py::test_a",
        "tests/workers/test_kill.py::test_a",
    ]
    order = scheduling.order(tests)
    assert sorted(order) == sorted({scheduling.unit(test) for test in tests})
    assert len(order) == 12


def test_waiting_and_computing_modules_alternate() -> None:
    order = scheduling.order([*of_folder("live", 20), *of_folder("imap", 20)])
    for start in range(0, 20, 4):
        kinds = {scheduling.folder(each) for each in order[start : start + 4]}
        assert kinds == {"live", "imap"}
    assert {scheduling.folder(each) for each in order[-6:]} == {"imap"}, "the last ones compute"


def test_the_longest_come_first() -> None:
    longest = [f"{module}::test_a" for module in scheduling.LONGEST]
    order = scheduling.order([*of_folder("workers", 3), *of_folder("store", 3), *longest])
    assert set(order[: len(longest)]) == set(scheduling.LONGEST)


@pytest.mark.parametrize(
    ("processors", "gigabytes", "count"), [(2, 24, 6), (2, 4, 6), (2, 2, 3), (2, 1, 2), (16, 16, 27)]
)
def test_processes_fit_the_memory(
    monkeypatch: pytest.MonkeyPatch, processors: int, gigabytes: int, count: int
) -> None:  # fmt: skip
    values = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gigabytes * 1024**3 // 4096}
    monkeypatch.setattr(os, "sysconf", values.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(processors)))
    assert scheduling.process_count() == count
