"""Structured log events: each has a name (`event`) and fields, whatever observer writes it.

An event without a connection is logged with Twisted's own interface, its name as the field `event`:

    log.warn("worker {worker} has ended; it is replaced", event="worker-ended", worker=0, pid=1234)

`log_fields` logs an event whose fields say everything, as those of connections do. `format.py` turns both into lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.session.channel import ConnectionInfo

log = Logger(namespace="mailserver")

LONGEST_VALUE: Final = 500
"""Characters of a value that are written; the rest is left out."""


_PLAIN: Final = re.compile(rf"[!#-<>-\[\]-~]{{1,{LONGEST_VALUE}}}")
"""A value that needs no quotes: printable ASCII without space, quote, backslash and equals sign."""
LONGEST_SENTENCE: Final = 8192
"""Characters of a sentence that are written."""


class EventText:
    """An event as one line of words, made when an observer asks for it: `login session=... user=anna`."""

    __slots__ = ("_event", "_fields")

    def __init__(self, event: str, fields: dict[str, object]) -> None:
        self._event = event
        self._fields = fields

    def __str__(self) -> str:
        return " ".join([self._event, *(f"{key}={escape(value)}" for key, value in self._fields.items())])


def escape(value: object) -> str:
    """A value as one word of a log line: control characters, spaces and quotes cannot break it."""
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    body = "".join(
        char
        if char.isprintable() and char not in '"\\'
        else char.encode("unicode_escape", "replace").decode("ascii")
        if char != '"'
        else '\\"'
        for char in text[:LONGEST_VALUE]
    )
    return f'"{body}"'


def printable(text: str) -> str:
    """A sentence of bounded length whose control characters, but for newlines and tabs, are shown as escapes."""
    text = text[:LONGEST_SENTENCE]
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape", "replace").decode("ascii")
        for char in text
    )


def connection_fields(info: ConnectionInfo, user: str | None, fields: dict[str, object]) -> dict[str, object]:
    """The fields of an event of a connection: those of the connection, then `fields`.

    `user` is absent before a login, so that nobody can look like a user of that name.
    """
    found: dict[str, object] = {"session": info.session_id, "protocol": info.protocol}
    if info.peer is not None:
        found["peer"] = str(info.peer)
    found["tls"] = info.tls.version if info.tls else "none"
    if info.tls is not None and info.tls.server_name:
        found["name"] = info.tls.server_name
    if user is not None and "user" not in fields:
        found["user"] = user
    found.update((key, value) for key, value in fields.items() if value or key != "user")
    return found


def log_fields(event: str, fields: dict[str, object]) -> None:
    """Log an event at level info."""
    log.info("{text}", event=event, text=EventText(event, fields), **fields)


def log_bug(event: str, fields: dict[str, object], failure: Failure | None = None) -> None:
    """Log a failure with its traceback; the exception that is being handled when None."""
    log.failure("{text}", failure, event=event, text=EventText(event, fields), **cast("dict[str, Any]", fields))


def log_event(event: str, /, **fields: object) -> None:
    """Log an event that belongs to no connection, at level info."""
    log_fields(event, fields)


def log_warning(event: str, /, **fields: object) -> None:
    """Log an event that belongs to no connection, at level warn."""
    log.warn("{text}", event=event, text=EventText(event, fields), **fields)


def log_exceptions(work: Callable[[], None]) -> None:
    """Run `work` and log what it raises: for a LoopingCall, which would end with the first failure."""
    try:
        work()
    except Exception:
        log.failure("a periodic task has failed; it runs again at its next time", event="periodic-task-failed")
