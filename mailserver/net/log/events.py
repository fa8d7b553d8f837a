"""Log lines: one event, one line, whatever a client put into it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from twisted.logger import LogEvent, Logger, formatEventAsClassicLogText, formatTime

from mailserver.session.channel import ConnectionInfo

log = Logger(namespace="mailserver")
LINE_SYSTEM = "line"
"""What Twisted calls a line between processes in its own words."""
_CHATTING = frozenset({"-", LINE_SYSTEM})


def whatever_happens(work: Callable[[], None]) -> None:
    """For a LoopingCall on which others rest: it would end with the first failure."""
    try:
        work()
    except Exception:
        log.failure("what is done again and again")


def classic_text(event: LogEvent) -> str | None:
    """As `twisted.logger.formatEventAsClassicLogText`, which takes longer for a ready line than some commands do."""
    line, when = event.get("line"), event.get("log_time")
    if event.get("log_format") != "{line}" or "log_failure" in event or not line or not isinstance(line, str):
        return formatEventAsClassicLogText(event)
    system = event.get("log_system")
    if system is None:
        level = getattr(event.get("log_level"), "name", "-")
        system = f"{event.get('log_namespace', '-')}#{level}"
    text = f"{'-' if when is None else _stamp(int(when))} [{system}] {line}"
    return (text.replace("\n", "\n\t") if "\n" in text else text) + "\n"


def is_chatter(event: LogEvent) -> bool:
    """Twisted's own words on each socket that is opened and closed, in each process; what a line brings about, too."""
    return event.get("log_system") in _CHATTING and not event.get("isError")


@lru_cache(maxsize=1)
def _stamp(second: int) -> str:
    return formatTime(float(second))


LONGEST_VALUE: Final = 500
"""Characters of a value; what stands behind them is left out."""


def escape(value: object) -> str:
    """A value as one word of a log line: control characters, spaces and quotes cannot break it."""
    text = str(value)
    if 0 < len(text) <= LONGEST_VALUE and text.isascii() and text.isprintable() and not set(text) & set(' "\\='):
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


def event_line(event: str, info: ConnectionInfo, user: str | None, fields: dict[str, object]) -> str:
    """The line: what happened, then what is known of the connection."""
    words = [event, f"session={info.session_id}", f"protocol={info.protocol}"]
    if info.peer is not None:
        words.append(f"peer={info.peer}")
    words.append(f"tls={info.tls.version if info.tls else 'none'}")
    if info.tls is not None and info.tls.server_name:
        words.append(f"name={escape(info.tls.server_name)}")
    if user is not None and "user" not in fields:
        words.append(f"user={escape(user)}")
    # Before a login `user` is nobody, and must not look like the name of somebody.
    words.extend(f"{key}={escape(value)}" for key, value in fields.items() if value or key != "user")
    return " ".join(words)


def plain_line(event: str, fields: dict[str, object]) -> str:
    """A line that belongs to no connection."""
    return " ".join([event, *(f"{key}={escape(value)}" for key, value in fields.items())])
