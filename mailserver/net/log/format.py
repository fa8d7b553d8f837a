"""Log lines: an event as text for people or as JSON for programs, with the same fields in both.

Text is `TIME [NAMESPACE#LEVEL PROCESS] ...`, then either `EVENT key=value ...` or a sentence, the event's name and the
fields that the sentence does not name. JSON has `time` (RFC 3339), `level`, `process`, `event` and the fields at the top
level, and `message` with the sentence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from string import Formatter
from typing import Final, Literal

from twisted.logger import LogEvent, formatEvent, formatEventAsClassicLogText, formatTime
from twisted.python.failure import Failure

from mailserver.net.log.events import LONGEST_VALUE, EventText, escape, printable

LogFormat = Literal["text", "json"]

LINE_SYSTEM: Final = "line"
"""What Twisted calls the connection between processes in its own messages."""
_CHATTER: Final = frozenset({"-", LINE_SYSTEM})
_NO_FIELDS: Final = frozenset({"event", "text", "isError"})
_RESERVED: Final = frozenset({"time", "level", "namespace", "process", "event", "message", "traceback", "text"})
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half of a pair, which some readers of JSON refuse, also as an escape."""


def is_chatter(event: LogEvent) -> bool:
    """Is it one of Twisted's own messages about each socket that is opened or closed?"""
    return event.get("log_system") in _CHATTER and not event.get("isError")


def fields_of(event: LogEvent) -> dict[str, object]:
    """The fields that whoever logged the event has given it."""
    return {key: value for key, value in event.items() if key not in _NO_FIELDS and not key.startswith("log_")}


def text_of(event: LogEvent, process: str = "") -> str | None:
    """A line of text with its newline, with the name of the `process`; None for an event without text.

    Its form is that of `twisted.logger.formatEventAsClassicLogText`.
    """
    body = body_of(event)
    if not body:
        return formatEventAsClassicLogText(event)
    when = event.get("log_time")
    system = _system(event)
    stamp = "-" if when is None else _text_time(int(when))
    body = f"{stamp} [{f'{system} {process}' if process else system}] {body}"
    return (body.replace("\n", "\n\t") if "\n" in body else body) + "\n"


def body_of(event: LogEvent) -> str | None:
    """The text behind time and system, and the traceback of a failure; None for an event without text."""
    if event.get("log_format") == "{text}" and event.get("text"):
        body = str(event["text"])  # an EventText, or what a worker has made of one
    else:
        body = formatEvent(event)
        if not body:
            return None
        name = event.get("event")
        if isinstance(name, str):
            body = printable(body)
            named = _placeholders(str(event.get("log_format")))
            more = {"event": name, **{key: value for key, value in fields_of(event).items() if key not in named}}
            body = " ".join([body, *(f"{key}={escape(value)}" for key, value in more.items())])
    if "log_failure" in event:
        body = f"{body}\n{_traceback(event)}"
    return body


def json_of(event: LogEvent, process: str = "", *, with_text: bool = False) -> str | None:
    """A line of JSON with its newline; None for an event without text. `with_text`: and the body of its text."""
    body = body_of(event) if with_text else None
    name = event.get("event")
    row: dict[str, object] = {"time": _json_time(event.get("log_time")), "level": _level(event)}
    row["namespace"] = event.get("log_namespace", "-")
    if process:
        row["process"] = process
    if isinstance(name, str):
        row["event"] = name
    if not isinstance(event.get("text"), EventText):
        message = formatEvent(event)
        if not message and name is None:
            return None
        row["message"] = printable(message)
    for key, value in fields_of(event).items():
        row[f"{key}_" if key in _RESERVED else key] = _plain(value)
    if "log_failure" in event:
        row["traceback"] = _traceback(event)
    if body is not None:
        row["text"] = body
    line = json.dumps(row, ensure_ascii=False)
    return (line if line.isascii() else _SURROGATE.sub(_escaped_surrogate, line)) + "\n"


def formatter(name: LogFormat) -> Callable[[LogEvent], str | None]:
    """The function that makes lines of a format."""
    return json_of if name == "json" else text_of


def _system(event: LogEvent) -> str:
    system = event.get("log_system")
    return f"{event.get('log_namespace', '-')}#{_level(event)}" if system is None else str(system)


def _level(event: LogEvent) -> str:
    return str(getattr(event.get("log_level"), "name", "-"))


def _traceback(event: LogEvent) -> str:
    failure = event["log_failure"]
    try:
        return failure.getTraceback() if isinstance(failure, Failure) else str(failure)
    except Exception as error:
        return f"(the traceback cannot be shown: {error!r})"


def _escaped_surrogate(found: re.Match[str]) -> str:
    return f"\\\\u{ord(found[0]):04x}"


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:LONGEST_VALUE]


@lru_cache(maxsize=1)
def _text_time(second: int) -> str:
    return formatTime(float(second))


def _json_time(when: float | None) -> str | None:
    return None if when is None else datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")


@lru_cache(maxsize=256)
def _placeholders(log_format: str) -> frozenset[str]:
    try:
        names = [name for _text, name, _spec, _conversion in Formatter().parse(log_format) if name]
    except ValueError:
        return frozenset()
    return frozenset(name.partition(".")[0].partition("[")[0].removesuffix("()") for name in names)
