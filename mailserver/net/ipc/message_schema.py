"""What workers tell, judged by its form: one that was taken over must not spoil what the others tell, or who reads it."""

from __future__ import annotations

from types import NoneType
from typing import Any, Final, TypeAlias, TypeGuard, Union

Json: TypeAlias = Union[bool, int, float, str, list["Json"], dict[str, "Json"], None]  # noqa: UP007 - recursive

MAX_NUMBER: Final = 1 << 63
"""Larger ones are nonsense: nobody counts so far, and some readers cannot take them."""
MAX_TEXT: Final = 2000
"""Characters of words that are for people."""

_SESSION: Final = {
    "session": str,
    "user": str | NoneType,
    "protocol": str,
    "peer": str | NoneType,
    "port": int,
    "tls": str | NoneType,
    "since": int,
    "mailbox": str | NoneType,
    "received": int,
    "sent": int,
}
_STATUS: Final = {
    "pid": int,
    "since": int,
    "memory": int,
    "descriptors": int,
    "descriptors_most": int,
    "listeners": [{"place": str, "protocol": str, "tls": str, "cleartext": bool, "connections": int}],
    "sessions": {"all": int, "logged_in": int, "by_tls": [(str, str, int)]},
    "certificates": [
        {
            "host": str,
            "domain": str,
            "not_after": str,
            "expires": int,
            "days_left": int,
            "issuer": str,
            "origin": str,
            "warning": int | NoneType,
            "default": bool,
        }
    ],
}
_ELSEWHERE: Final = frozenset({"event_counters"})
"""Judged by who takes it."""


def are_sessions(answer: Json) -> TypeGuard[list[dict[str, Json]]]:
    """Are these rows of `Sessions.who`?"""
    return _fits(answer, [_SESSION])


def is_status(answer: Json) -> TypeGuard[dict[str, Any]]:
    """Is it what `Status.status` tells? What is not named here is a number, or a number and its bound."""
    if not isinstance(answer, dict) or not _fits(answer, _STATUS):
        return False
    others = [value for key, value in answer.items() if key not in _STATUS and key not in _ELSEWHERE]
    return all(_fits(value, int) or _fits(value, (int, int)) for value in others)


def _is_text(value: str) -> bool:
    """Can it be written? JSON may tell half of a surrogate pair, which is no character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def one_line(text: str) -> str:
    """Another process's words for the log or a terminal, which they must neither break nor move, nor fill."""
    joined = "; ".join(text[:MAX_TEXT].splitlines())
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in joined)


def are_numbers(*numbers: int) -> bool:
    """Are they no larger than what can be counted?"""
    return all(abs(number) < MAX_NUMBER for number in numbers)


def _fits(value: Any, form: Any) -> bool:
    """A form is a type, a dictionary of the keys there must be, a list of what all are like, or a tuple of each one's."""
    if isinstance(form, dict):
        return isinstance(value, dict) and all(key in value and _fits(value[key], part) for key, part in form.items())
    if isinstance(form, list):
        return isinstance(value, list) and all(_fits(each, form[0]) for each in value)
    if isinstance(form, tuple):
        return (
            isinstance(value, list) and len(value) == len(form) and all(map(_fits, value, form))  # a JSON array
        )
    if isinstance(value, str):
        return isinstance(value, form) and _is_text(value)
    return isinstance(value, form) and not (isinstance(value, int) and not are_numbers(value))
