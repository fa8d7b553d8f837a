"""Log lines: one event, one line, whatever a client put into it."""

from __future__ import annotations

from twisted.logger import Logger

from mailserver.channel import ConnectionInfo

log = Logger(namespace="mailserver")


def escape(value: object) -> str:
    """A value as one word of a log line: control characters, spaces and quotes cannot break it."""
    text = str(value)
    if text and text.isascii() and text.isprintable() and not set(text) & set(' "\\='):
        return text
    body = "".join(
        char
        if char.isprintable() and char not in '"\\'
        else char.encode("unicode_escape", "replace").decode("ascii")
        if char != '"'
        else '\\"'
        for char in text[:500]
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
    words.extend(f"{key}={escape(value)}" for key, value in fields.items())
    return " ".join(words)


def plain_line(event: str, fields: dict[str, object]) -> str:
    """A line that belongs to no connection."""
    return " ".join([event, *(f"{key}={escape(value)}" for key, value in fields.items())])
