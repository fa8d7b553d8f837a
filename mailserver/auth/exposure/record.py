"""The record of exposed passwords: users whose right password came in clear text. A small file in the state directory.

A user stays marked over restarts, until the administrator clears the mark after a change of the password. The record
holds no password. It is bounded: the user with the oldest last exposure is dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from attrs import asdict, evolve, frozen

from mailserver.system.atomic_file import replace_file

FILE: Final = "exposures.json"
MAX_USERS: Final = 10_000
_LONGEST: Final = {"user": 1024, "protocol": 20, "method": 20, "peer": 64}
"""Longest fields, characters: a worker's messages are not trusted."""
_LARGEST_FILE: Final = 64 << 20


class DamagedRecord(Exception):
    """The file is not a record. The text says where it was moved to."""


@frozen
class Exposure:
    """The entry of one user."""

    user: str
    first: int
    """Unix time."""
    last: int
    count: int
    """At most one a minute is counted for each network and worker."""
    protocol: str
    """Of the last one: "imap", "pop3" or "submission"."""
    method: str
    peer: str
    """The client's address; empty for a Unix socket."""


class ExposureRecord:
    """The record in memory. `load` and `save` may run in a thread, everything else on the reactor's."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._by_user: dict[str, Exposure] = {}
        """In the order of the last exposure, the oldest first."""

    def __len__(self) -> int:
        return len(self._by_user)

    def load(self) -> None:
        """Read the file, if it exists. Raises: OSError; DamagedRecord, and the record starts empty."""
        try:
            with open(self.path, encoding="utf-8") as file:
                text = file.read(_LARGEST_FILE)
        except FileNotFoundError:
            return
        except UnicodeDecodeError:
            text = ""
        try:
            found = [_from_json(each) for each in json.loads(text)["exposures"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            aside = self.path.with_suffix(".damaged")
            os.replace(self.path, aside)
            raise DamagedRecord(
                f"{self.path} is damaged: it was moved to {aside}, and the record starts empty"
            ) from None
        found.sort(key=lambda each: each.last)
        self._by_user = {each.user: each for each in found[-MAX_USERS:]}

    def add(self, mark: object, now: int) -> bool:
        """Mark a user. `mark`: a `checker.ExposureMark` of a worker. Return False if it is malformed."""
        if not isinstance(mark, dict) or set(mark) != set(_LONGEST):
            return False
        if not all(isinstance(mark[key], str) and len(mark[key]) <= longest for key, longest in _LONGEST.items()):
            return False
        if not mark["user"] or not all(value.isprintable() for value in mark.values()):
            return False  # it is shown to the administrator
        before = self._by_user.pop(mark["user"], None)
        if before is None:
            self._by_user[mark["user"]] = Exposure(first=now, last=now, count=1, **mark)
        else:
            self._by_user[mark["user"]] = evolve(before, last=now, count=before.count + 1, **mark)
        if len(self._by_user) > MAX_USERS:
            del self._by_user[next(iter(self._by_user))]
        return True

    def clear(self, user: str) -> list[str]:
        """Remove the mark of a user, or of all for "". Return the users that had one."""
        if not user:
            cleared, self._by_user = list(self._by_user), {}
            return cleared
        return [user] if self._by_user.pop(user, None) is not None else []

    def rows(self) -> list[dict[str, Any]]:
        """All entries as JSON, the newest first."""
        return [asdict(each) for each in reversed(self._by_user.values())]

    def text(self) -> str:
        """The content for `save`. Call it on the thread that changes the record."""
        return json.dumps({"exposures": self.rows()[::-1]}, indent=1) + "\n"

    def save(self, text: str) -> None:
        """Replace the file atomically and durably. Raises: OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self.path, text.encode("utf-8"), follow=False)


def _from_json(value: Any) -> Exposure:
    """Raises: ValueError, TypeError, KeyError."""
    if not all(isinstance(value[key], str) and len(value[key]) <= longest for key, longest in _LONGEST.items()):
        raise ValueError("not a text, or too long")
    first, last, count = (int(value[key]) for key in ("first", "last", "count"))
    return Exposure(first=first, last=last, count=count, **{key: value[key] for key in _LONGEST})
