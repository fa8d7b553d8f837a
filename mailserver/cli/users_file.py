"""Edits of a users file: one line changes, all others stay unchanged, and no reader sees a partial file."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from attrs import frozen

from mailserver.auth.backends.users_file import check
from mailserver.auth.schemes.passwd import BadLine, BadName, PasswdEntry, name_of, normalise, parse_line
from mailserver.auth.schemes.scram_fields import replace_fields
from mailserver.config.model import Problem
from mailserver.system.atomic_file import only_one, replace_file

_NO_KEYS: Final[Mapping[str, str]] = MappingProxyType({})


class NoSuchEntry(LookupError):
    """The file has no user of that name."""


class EntryExists(LookupError):
    """The file has a user of that name already."""


@frozen
class UsersFile:
    """A users file, and the owner of a new one. All names are normalised (`passwd.normalise`)."""

    path: Path
    owner: str = ""
    """System user that owns a new file made by root; empty: the caller."""

    def entries(self) -> Iterator[PasswdEntry]:
        """The users of the file, in its order, without faulty lines. Raises: OSError."""
        for line in self._lines():
            if name_of(line) is None:
                continue
            try:
                yield parse_line(line)
            except (BadLine, BadName):
                continue

    def find(self, name: str) -> PasswdEntry | None:
        """The user of that name; the first of two lines counts. Raises: OSError."""
        return next((entry for entry in self.entries() if entry.name == name), None)

    def problems(self) -> list[Problem]:
        """The problems of the file and its lines."""
        return check(self.path)

    def add(self, name: str, stored: str, scram: Mapping[str, str] = _NO_KEYS) -> None:
        """Append a user, with the extra fields of its SCRAM keys. Raises: EntryExists, OSError."""

        def edit(lines: list[str]) -> None:
            if _find(lines, name) is not None:
                raise EntryExists(name)
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += "\n"
            lines.append(f"{name}:{stored}::::::{replace_fields('', scram)}\n")

        self._edit(edit)

    def scram_parameters(self, name: str) -> Mapping[str, str]:
        """None: a users file has no app passwords."""
        del name
        return _NO_KEYS

    def set_password(self, name: str, stored: str, scram: Mapping[str, str] = _NO_KEYS) -> None:
        """Replace the password and the SCRAM keys; a disabled user stays disabled. Raises: NoSuchEntry, OSError."""

        def change(fields: list[str]) -> None:
            fields[1] = ("!" if fields[1].startswith("!") else "") + stored
            extra = ":".join(fields[7:])
            if scram or replace_fields(extra, {}) != " ".join(extra.split()):
                fields += [""] * (8 - len(fields))
                fields[7:] = [replace_fields(extra, scram)]

        self._edit_fields(name, change)

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """Disable or enable the user; the password stays. Raises: NoSuchEntry, OSError."""

        def change(fields: list[str]) -> None:
            fields[1] = ("!" if disabled else "") + fields[1].removeprefix("!")

        self._edit_fields(name, change)

    def rename(self, name: str, new: str) -> None:
        """Rename the user; the rest of the line stays. Raises: NoSuchEntry, EntryExists, OSError."""

        def edit(lines: list[str]) -> None:
            if _find(lines, new) is not None:
                raise EntryExists(new)
            index = _find(lines, name)
            assert index is not None
            lines[index] = new + lines[index][len(lines[index].partition(":")[0]) :]

        self._edit(edit, name)

    def delete(self, name: str) -> None:
        """Remove the user; its mail stays. Raises: NoSuchEntry, OSError."""

        def edit(lines: list[str]) -> None:
            # A second line of the same name would otherwise become effective.
            while (index := _find(lines, name)) is not None:
                del lines[index]

        self._edit(edit, name)

    def _edit_fields(self, name: str, change: Callable[[list[str]], None]) -> None:
        def edit(lines: list[str]) -> None:
            index = _find(lines, name)
            assert index is not None
            text = lines[index].rstrip("\r\n")
            fields = text.split(":")
            fields += [""] * (2 - len(fields))
            change(fields)
            lines[index] = ":".join(fields) + lines[index][len(text) :]

        self._edit(edit, name)

    def _edit(self, edit: Callable[[list[str]], None], expected: str | None = None) -> None:
        with only_one(self.path):
            lines = self._lines() if self.path.exists() else []
            if expected is not None and _find(lines, expected) is None:
                raise NoSuchEntry(expected)
            edit(lines)
            data = "".join(lines).encode("utf-8", "surrogateescape")
            replace_file(self.path, data, mode=0o600, owner=self._owner())

    def _lines(self) -> list[str]:
        text = self.path.read_bytes().decode("utf-8", "surrogateescape")
        # Lines end at LF alone: splitlines() would split names at other characters.
        return re.findall(r"[^\n]*\n|[^\n]+", text)

    def _owner(self) -> tuple[int, int] | None:
        if not self.owner:
            return None
        account = pwd.getpwnam(self.owner)
        return account.pw_uid, account.pw_gid


def _find(lines: list[str], name: str) -> int | None:
    for index, line in enumerate(lines):
        written = name_of(line)
        if written is None:
            continue
        try:
            if normalise(written) == name:
                return index
        except BadName:
            continue
    return None
