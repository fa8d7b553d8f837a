"""Whose password has come in clear text and was right: a small file in the state directory, kept over restarts.

A user stays marked until the administrator clears the mark, when the password has been changed. The record holds no
password. It is bounded: the user whose last exposure is longest ago makes room.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from attrs import asdict, evolve, frozen

FILE: Final = "exposures.json"
MAX_USERS: Final = 10_000
_LONGEST: Final = {"user": 1024, "protocol": 20, "method": 20, "peer": 64}
"""Characters of each field: whoever tells is not trusted."""
_LARGEST_FILE: Final = 64 << 20


class DamagedRecord(Exception):
    """The file is none of ours; the text says where it was put."""


@frozen
class Exposure:
    """One user's."""

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
    """In memory; `load` and `save` are for a thread, everything else for the reactor's."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._by_user: dict[str, Exposure] = {}
        """The longest ago first."""

    def __len__(self) -> int:
        return len(self._by_user)

    def load(self) -> None:
        """Read the file, if there is one. Raises: OSError; DamagedRecord, and it begins anew."""
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
            raise DamagedRecord(f"{self.path} is damaged: it was set aside as {aside}, and begun anew") from None
        found.sort(key=lambda each: each.last)
        self._by_user = {each.user: each for each in found[-MAX_USERS:]}

    def add(self, mark: object, now: int) -> bool:
        """ExposureMark a user, as `exposure.ExposureMark` says. False for nonsense."""
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
        """Take a user's mark away, all with "": whose was taken."""
        if not user:
            cleared, self._by_user = list(self._by_user), {}
            return cleared
        return [user] if self._by_user.pop(user, None) is not None else []

    def rows(self) -> list[dict[str, Any]]:
        """All, the newest first."""
        return [asdict(each) for each in reversed(self._by_user.values())]

    def text(self) -> str:
        """What `save` is to write: made on the thread that changes the record."""
        return json.dumps({"exposures": self.rows()[::-1]}, indent=1) + "\n"

    def save(self, text: str) -> None:
        """Whole or not at all, and there after a power cut. Raises: OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(opened, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _from_json(told: Any) -> Exposure:
    """Raises: ValueError, TypeError, KeyError."""
    if not all(isinstance(told[key], str) and len(told[key]) <= longest for key, longest in _LONGEST.items()):
        raise ValueError("not a text, or too long")
    first, last, count = (int(told[key]) for key in ("first", "last", "count"))
    return Exposure(first=first, last=last, count=count, **{key: told[key] for key in _LONGEST})
