"""Log lines with hostile values stay valid JSON, and the relay outlives hostile lines of a worker."""

from __future__ import annotations

import json

import pytest
from twisted.logger import LogEvent, capturedLogs, globalLogPublisher

from mailserver.net.log import relay
from mailserver.net.log.events import EventText, log
from mailserver.net.log.format import json_of, text_of
from mailserver.net.log.relay import LogRelay
from tests.net.log_events import logged


class _Reactor:
    def addReader(self, reader: object) -> None:
        """Nothing reads by itself."""

    def removeReader(self, reader: object) -> None:
        """Nothing reads by itself."""


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("\udc80\ud800", "\\udc80\\ud800"),
        ("a\nb\x1b[31m", "a\nb\x1b[31m"),
        ("\u00e9\U0001f600", "\u00e9\U0001f600"),
    ],
)
def test_json_stays_valid_with_any_value(value: object, written: str) -> None:
    line = json_of({"log_format": "{text}", "event": "login", "text": EventText("login", {"v": value}), "v": value})
    assert line is not None
    assert line.encode("utf-8").count(b"\n") == 1
    assert json.loads(line, parse_constant=_refuse)["v"] == written


def test_the_relay_goes_on_after_a_line_that_is_nested_too_deeply() -> None:
    events: list[LogEvent] = []
    relay = LogRelay(_Reactor())
    globalLogPublisher.addObserver(events.append)
    try:
        with open(relay.output, "wb", buffering=0, closefd=False) as output:
            output.write(b"[" * 60000 + b"\n")
            relay.doRead()
            output.write(b'{"text": "the next line"}\n')
            relay.doRead()
    finally:
        globalLogPublisher.removeObserver(events.append)
        relay.close()
    assert [event["text"] for event in events if event.get("text")][-1] == "the next line"


def test_a_sentence_shows_control_characters_and_is_bounded() -> None:
    [event] = logged(
        lambda: log.warn("the library says {reason}", event="x", reason="\x1b[2J\x9b\u2028\u202e" + "y" * 100_000)
    )
    for line in (str(text_of(event)), json.loads(str(json_of(event)))["message"]):
        assert line.rstrip("\n").isprintable()
        assert "\\x1b[2J\\x9b\\u2028\\u202e" in line
        assert len(line) < 9000


def test_a_worker_cannot_forge_the_system_of_a_line() -> None:
    row = {"level": "info\nFORGED", "namespace": "a\x1b[2J", "process": "0] forged", "event": "x", "text": "t\x1b"}
    with capturedLogs() as events:
        relay._write(json.dumps(row))
    assert str(events[0]["log_system"]).isprintable()
    assert str(events[0]["text"]) == "t\\x1b"
