"""The record of exposed passwords around its file: gathered, written in a thread, told, cleared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from mailserver.auth.exposure.record import FILE
from mailserver.net.admin.control_socket import BadRequest, DataAnswer
from mailserver.net.admin.exposures import SAVE_AFTER, Exposures
from mailserver.net.log.format import body_of

MARK = {"user": "anna@example.test", "protocol": "imap", "method": "LOGIN", "peer": "192.0.2.1"}


class Reactor(Clock):
    """Work given to a thread waits until `work` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Callable[[], None]] = []

    def getThreadPool(self) -> Reactor:
        return self

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        call(*arguments)

    def callInThreadWithCallback(self, take: Any, call: Any, *arguments: Any) -> None:
        def do() -> None:
            try:
                result, well = call(*arguments), True
            except Exception:
                result, well = Failure(), False
            take(well, result)

        self.given.append(do)

    def work(self) -> int:
        given, self.given = self.given, []
        for do in given:
            do()
        return len(given)


def written(directory: Path) -> list[str]:
    return [each["user"] for each in json.loads((directory / FILE).read_text())["exposures"]]


def ask(exposures: Exposures, name: str, **arguments: Any) -> Any:
    results: list[Any] = []
    exposures.commands()[name](arguments).addCallback(results.append)
    [result] = results
    return result


def test_marks_are_gathered_and_written_off_the_reactor(tmp_path: Path) -> None:
    reactor = Reactor()
    exposures = Exposures(reactor, tmp_path)
    exposures.load()
    exposures.take(MARK)
    exposures.take({**MARK, "user": "bert@example.org"})
    exposures.take("nonsense")
    assert reactor.given == []
    reactor.advance(SAVE_AFTER)
    assert not (tmp_path / FILE).exists()
    assert reactor.work() == 1
    assert written(tmp_path) == ["anna@example.test", "bert@example.org"]
    assert len(exposures) == 2


def test_what_comes_while_it_is_written_is_written_next(tmp_path: Path) -> None:
    reactor = Reactor()
    exposures = Exposures(reactor, tmp_path)
    exposures.take(MARK)
    reactor.advance(SAVE_AFTER)
    exposures.take({**MARK, "user": "bert@example.org"})
    reactor.advance(SAVE_AFTER)
    assert reactor.work() == 1, "one at a time"
    assert written(tmp_path) == ["anna@example.test"]
    reactor.advance(SAVE_AFTER)
    assert reactor.work() == 1
    assert written(tmp_path) == ["anna@example.test", "bert@example.org"]


@pytest.mark.parametrize("begun", [False, True])
def test_the_end_waits_until_all_is_written(tmp_path: Path, begun: bool) -> None:
    reactor = Reactor()
    exposures = Exposures(reactor, tmp_path)
    exposures.take(MARK)
    if begun:
        reactor.advance(SAVE_AFTER)
        exposures.take({**MARK, "user": "bert@example.org"})
    ended: list[object] = []
    exposures.stop().addCallback(ended.append)
    assert ended == []
    while reactor.work():
        pass
    assert ended == [None]
    assert len(written(tmp_path)) == 1 + begun
    exposures.stop().addCallback(ended.append)
    assert len(ended) == 2, "nothing is left to write"


def test_they_are_told_and_cleared(tmp_path: Path) -> None:
    reactor = Reactor()
    exposures = Exposures(reactor, tmp_path)
    exposures.take(MARK)
    told = ask(exposures, "exposures")
    assert isinstance(told, DataAnswer)
    [row] = told.data  # type: ignore[misc]
    assert row["user"] == MARK["user"]  # type: ignore[index, call-overload]
    assert ask(exposures, "exposures-clear", user="nobody") == (False, ["no exposure of nobody is recorded"])
    assert ask(exposures, "exposures-clear", user=MARK["user"]) == (True, [f"cleared {MARK['user']}"])
    assert ask(exposures, "exposures-clear", user="") == (False, ["no exposure is recorded"])
    reactor.advance(SAVE_AFTER)
    reactor.work()
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("exposures", {"user": "x"}),
        ("exposures-clear", {}),
        ("exposures-clear", {"user": 5}),
        ("exposures-clear", {"user": "x", "more": "y"}),
    ],
)
def test_other_arguments_are_refused(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        ask(Exposures(Reactor(), tmp_path), name, **arguments)


def test_without_a_place_for_the_file_they_are_remembered_and_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    lines: list[str] = []

    def hear(event: Any) -> None:
        lines.append(body_of(event) or "")

    globalLogPublisher.addObserver(hear)
    try:
        reactor = Reactor()
        exposures = Exposures(reactor, tmp_path / "file" / "state")
        exposures.load()
        exposures.take(MARK)
        reactor.advance(SAVE_AFTER)
        reactor.work()
    finally:
        globalLogPublisher.removeObserver(hear)
    assert len(exposures) == 1
    assert any("remembered until the server stops" in line for line in lines)
