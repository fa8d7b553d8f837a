"""The record of a login or a refusal, as the ring keeps it: one JSON object of bounded size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

from attrs import field, frozen

from mailserver.explain.trace import Call

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
_SHORTENED: Final = (250, 100, 40, 12)
"""Characters that a text keeps, tried in this order until the record fits."""


class BadRecord(ValueError):
    """The octets are no record."""


def _text() -> Any:
    return field(default="")


@frozen
class Record:
    """One attempt. Texts from clients are as `names.shown_name` has them, and may have control characters otherwise."""

    at: float
    """Seconds since the epoch, by the wall clock."""
    ref: str = _text()
    """The id of a refusal; empty for a login that was let in."""
    typed: str = _text()
    user: str = _text()
    """The account; empty where none was found."""
    delegate: str = _text()
    """The account that logged in as `user` with its own password, or tried to; empty: the user itself."""
    credential: str = _text()
    """The app password that let the client in."""
    names: tuple[str, ...] = ()
    protocol: str = _text()
    peer: str = _text()
    """The client's address; empty for a Unix socket."""
    session: str = _text()
    server_name: str = _text()
    """The name asked for by SNI."""
    host: str = _text()
    """The configured host that was served."""
    tls: str = _text()
    """The version; empty without TLS."""
    method: str = _text()
    rule: str = _text()
    """A value of `trace.Rule`."""
    reason: str = _text()
    waited: float = 0.0
    delay: float = 0.0
    calls: tuple[Call, ...] = ()

    @property
    def owner(self) -> str:
        """The account whose password it is; empty where none was found."""
        return self.delegate or self.user

    @property
    def refused(self) -> bool:
        """Was the login refused?"""
        return bool(self.ref)

    def to_octets(self, longest: int) -> bytes:
        """The JSON object in at most so many octets; long texts are cut. `longest` is at least 900."""
        octets = self._encode(str)
        for limit in _SHORTENED:
            if len(octets) <= longest:
                break
            octets = self._encode(lambda text, limit=limit: text if len(text) <= limit else text[: limit - 1] + "…")
        return octets

    def _encode(self, cut: Callable[..., str]) -> bytes:
        found: dict[str, Any] = {"at": round(self.at, 3)}
        found |= {key: cut(text) for key in TEXTS if (text := getattr(self, key))}
        if self.names:
            found["names"] = [cut(name) for name in self.names[:3]]
        if self.waited >= 0.001:
            found["waited"] = round(self.waited, 3)
        if self.delay:
            found["delay"] = round(self.delay, 3)
        if self.calls:
            found["calls"] = [
                [cut(each.backend), each.question, round(each.seconds, 4), each.answer] for each in self.calls
            ]
        return _ENCODER.encode(found).encode("utf-8", "replace")

    @classmethod
    def of_octets(cls, octets: bytes) -> Record:
        """Raises: BadRecord. Another user's process may have written them."""
        try:
            found = json.loads(octets)
            texts = {key: _checked(found.get(key, "")) for key in TEXTS}
            calls = tuple(
                Call(_checked(a), _checked(b), _number(c), _checked(d)) for a, b, c, d in found.get("calls", ())
            )
            return cls(
                _number(found["at"]),
                names=tuple(map(_checked, found.get("names", ()))),
                waited=_number(found.get("waited", 0.0)),
                delay=_number(found.get("delay", 0.0)),
                calls=calls,
                **texts,
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise BadRecord(str(error)) from None


def _checked(value: object) -> str:
    """A text that can be printed. Raises: ValueError, also for a lone surrogate."""
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    value.encode("utf-8")
    return value


def _number(value: object) -> float:
    """Raises: ValueError, OverflowError, TypeError."""
    if not isinstance(value, int | float) or not math.isfinite(number := float(value)):
        raise ValueError("a number is expected")
    return number


TEXTS: Final = (
    "ref",
    "typed",
    "user",
    "delegate",
    "credential",
    "protocol",
    "peer",
    "session",
    "server_name",
    "host",
    "tls",
    "method",
    "rule",
    "reason",
)
