"""Editing a users file: one line changes, every other stays as it is, and a reader never sees half of it."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from mailserver.auth.passwd import BadLine, BadName, PasswdEntry, name_of, normalise, parse_line
from mailserver.cli.replace import only_one, replace_file


class NoSuchEntry(LookupError):
    """The file has no user of that name."""


class EntryExists(LookupError):
    """The file has a user of that name already."""


@frozen
class UsersFile:
    """A users file, and whose it is when it has to be made. All names are as `passwd.normalise` gives them."""

    path: Path
    owner: str = ""
    """System user that a new file is given to when root makes it; empty for the caller."""

    def entries(self) -> Iterator[PasswdEntry]:
        """The users of the file, in its order; lines that are no entries are passed over. Raises: OSError."""
        for line in self._lines():
            if name_of(line) is None:
                continue
            try:
                yield parse_line(line)
            except (BadLine, BadName):
                continue

    def add(self, name: str, stored: str) -> None:
        """A new user at the end. Raises: EntryExists, OSError."""

        def edit(lines: list[str]) -> None:
            if _find(lines, name) is not None:
                raise EntryExists(name)
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += "\n"
            lines.append(f"{name}:{stored}::::::\n")

        self._edit(edit)

    def set_password(self, name: str, stored: str) -> None:
        """Another password; a disabled user stays disabled. Raises: NoSuchEntry, OSError."""
        self._edit_field(name, lambda old: ("!" if old.startswith("!") else "") + stored)

    def set_disabled(self, name: str, *, disabled: bool) -> None:
        """Refuse the user's logins, or take them again; the password stays. Raises: NoSuchEntry, OSError."""
        self._edit_field(name, lambda old: ("!" if disabled else "") + old.removeprefix("!"))

    def delete(self, name: str) -> None:
        """Take the user out; mail stays where it is. Raises: NoSuchEntry, OSError."""

        def edit(lines: list[str]) -> None:
            # A second line of the same name would otherwise come to life.
            while (index := _find(lines, name)) is not None:
                del lines[index]

        self._edit(edit, name)

    def _edit_field(self, name: str, change: Callable[[str], str]) -> None:
        def edit(lines: list[str]) -> None:
            index = _find(lines, name)
            assert index is not None
            text = lines[index].rstrip("\r\n")
            fields = text.split(":")
            fields += [""] * (2 - len(fields))
            fields[1] = change(fields[1])
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
        # Lines end at LF alone: splitlines() would cut names at other characters.
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
