"""Events of workers in the master's log."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel, capturedLogs

from mailserver.net.log import process_log
from mailserver.net.log.events import log, log_fields
from mailserver.net.log.format import text_of
from mailserver.net.log.process_log import ProcessLog
from mailserver.net.log.relay import LogRelay
from tests.net.log_events import logged


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> Any:
    relay = LogRelay(SimpleNamespace(addReader=lambda _reader: None, removeReader=lambda _reader: None))
    monkeypatch.setattr(process_log, "_STANDARD_OUTPUT", relay.output)
    worker = ProcessLog("1", relayed=True)

    def relayed(events: list[LogEvent]) -> list[LogEvent]:
        for event in events:
            worker(event)
        with capturedLogs() as arrived:
            relay.doRead()
        return list(arrived)

    relayed.output = relay.output  # type: ignore[attr-defined]
    yield relayed
    relay.close()


def test_an_event_keeps_its_name_its_fields_its_level_and_its_text(relayed: Any) -> None:
    sent = logged(lambda: log_fields("login", {"user": "a b", "size": 7}))
    sent += logged(lambda: log.warn("the {what} is full", event="full", what="disk", size=8))
    login, full = relayed(sent)
    assert (login["event"], login["user"], login["size"], login["log_level"]) == ("login", "a b", 7, LogLevel.info)
    assert login["log_system"] == "mailserver#info 1"
    assert (full["event"], full["what"], full["size"], full["log_level"]) == ("full", "disk", 8, LogLevel.warn)
    for before, after in zip(sent, (login, full), strict=True):
        assert text_of(after) == text_of(before, "1"), "with the time at which the worker has logged it"


def test_words_that_are_no_event_are_logged_as_they_stand(relayed: Any) -> None:
    os.write(relayed.output, b'Fatal Python error: Segmentation fault\n{"log_format": "x"}\n[1, 2]\n7\n')
    crash, *others = relayed([])
    assert crash["text"] == "Fatal Python error: Segmentation fault"
    assert [event["log_format"] for event in (crash, *others)] == ["{text}"] * 4
