"""Log events: their lines cannot be broken by what a client sends, and text and JSON have the same fields."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, formatEvent, formatEventAsClassicLogText
from twisted.python.failure import Failure

from mailserver.net.log.events import EventText, connection_fields, escape, log_bug, log_exceptions, log_fields
from mailserver.net.log.format import body_of, json_of, text_of
from tests.fakes import info
from tests.net.log_events import logged


@given(st.text())
def test_a_value_is_one_word_on_one_line(text: str) -> None:
    word = escape(text)
    assert word.isprintable()
    assert word.startswith('"') or not set(word) & set(' "=')
    if word.startswith('"'):
        assert word.endswith('"')


def test_controls_and_quotes_are_shown_not_sent() -> None:
    assert escape("a\r\nlogin user=root") == '"a\\r\\nlogin user=root"'
    assert escape('say "hi"') == '"say \\"hi\\""'
    assert escape("plain") == "plain"
    assert escape("") == '""'
    assert escape("a" * 500) == "a" * 500
    assert escape("a" * 100_000) == '"' + "a" * 500 + '"', "no client's word fills the log"


def test_a_line_names_the_connection() -> None:
    fields = connection_fields(info("imaps"), "anna@example.test", {"mechanism": "PLAIN"})
    line = str(EventText("login", fields))
    assert line.startswith("login session=test1 protocol=imaps peer=192.0.2.7 tls=TLSv1.3")
    assert line.endswith("user=anna@example.test mechanism=PLAIN")


@pytest.mark.parametrize("nobody", [None, ""])
def test_nobody_is_no_user_of_that_name(nobody: str | None) -> None:
    fields = connection_fields(info("pop3s"), None, {"user": nobody, "method": ""})
    assert "user" not in fields
    assert str(EventText("too-many-errors", fields)).endswith(' method=""')


_events = st.fixed_dictionaries(
    {"log_format": st.sampled_from(["{line}", "{line} {more}", "plain", None])},
    optional={
        "line": st.text() | st.none() | st.just(7),
        "log_system": st.text() | st.none(),
        "log_namespace": st.text(),
        "log_level": st.sampled_from(list(LogLevel.iterconstants())),
        "log_time": st.none() | st.floats(1.0, 2e9),
        "log_failure": st.just(Failure(ValueError("x"))),
    },
)


@given(_events)
def test_an_event_without_a_name_is_written_as_twisted_writes_it(event: dict[str, object]) -> None:
    assert text_of(event) == formatEventAsClassicLogText(event)


@given(st.dictionaries(st.sampled_from(["user", "name", "reason", "size"]), st.text() | st.integers() | st.booleans()))
def test_text_and_json_have_the_same_fields(fields: dict[str, object]) -> None:
    [event] = logged(lambda: log_fields("login", fields))
    line, row = text_of(event), json_of(event)
    assert line is not None
    assert row is not None
    assert line.count("\n") == row.count("\n") == 1
    read = json.loads(row)
    assert read["event"] == "login"
    assert read["level"] == "info"
    assert {key: read[key] for key in fields} == {
        key: value if isinstance(value, int) else str(value)[:500] for key, value in fields.items()
    }
    assert line.partition("] ")[2] == " ".join(["login", *(f"{k}={escape(v)}" for k, v in fields.items())]) + "\n"


def test_a_sentence_is_followed_by_its_name_and_the_fields_that_it_does_not_name() -> None:
    log = Logger(namespace="mailserver")
    [event] = logged(lambda: log.warn("worker {worker} has ended", event="worker-ended", worker=1, pid=7, why="a b"))
    assert body_of(event) == 'worker 1 has ended event=worker-ended pid=7 why="a b"'
    row = json.loads(str(json_of(event, "master")))
    time = row.pop("time")
    assert time.endswith("+00:00")
    assert row == {
        "level": "warn",
        "namespace": "mailserver",
        "process": "master",
        "event": "worker-ended",
        "message": "worker 1 has ended",
        "worker": 1,
        "pid": 7,
        "why": "a b",
    }


def test_a_field_of_a_reserved_name_does_not_replace_what_that_says() -> None:
    [event] = logged(lambda: log_fields("login", {"time": "later", "message": "m", "process": "p"}))
    row = json.loads(str(json_of(event, "0")))
    assert (row["process"], row["time_"], row["message_"], row["process_"]) == ("0", "later", "m", "p")


def test_a_bug_has_its_traceback_in_both() -> None:
    def fail() -> None:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            log_bug("bug", {"doing": "a test"})

    [event] = logged(fail)
    assert "ZeroDivisionError" in str(text_of(event))
    row = json.loads(str(json_of(event)))
    assert (row["event"], row["doing"], row["level"]) == ("bug", "a test", "critical")
    assert "ZeroDivisionError" in row["traceback"]


def test_another_observer_of_twisted_sees_the_same_words() -> None:
    [event] = logged(lambda: log_fields("login", {"user": "a b\nlogin"}))
    assert formatEvent(event) == 'login user="a b\\nlogin"'


def test_a_periodic_task_goes_on_behind_a_failure_that_is_logged() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    [event] = logged(lambda: log_exceptions(fail))
    assert event["log_failure"].check(ZeroDivisionError)


def test_words_of_the_format_are_no_fields_of_an_event_without_a_name() -> None:
    event: dict[str, Any] = {"log_format": "Starting factory {factory!r}", "factory": "f", "log_level": LogLevel.info}
    row = json.loads(str(json_of(event)))
    assert row["message"] == "Starting factory 'f'"
    assert shlex.split(str(body_of(event))) == ["Starting", "factory", "f"]
