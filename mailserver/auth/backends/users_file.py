"""Reading a users file, and the check of its lines.

A faulty line refuses only its own user, so it is a warning; a fault that refuses everybody is an error. The number of
warnings is bounded: a file of 100,000 lines may have the same fault in each.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import define, field

from mailserver.auth.limits import LOCAL_NETWORK
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import BadLine, BadName, PasswdEntry, name_of, parse_line
from mailserver.auth.schemes.quota_fields import FIELDS as QUOTA_FIELDS
from mailserver.auth.schemes.quota_fields import quota_faults
from mailserver.auth.schemes.scram_fields import FIELDS as SCRAM_FIELDS
from mailserver.auth.schemes.scram_fields import faults
from mailserver.config.model import Problem

MAX_FILE: Final = 64 * 1024 * 1024
"""Largest users file read, octets."""
MAX_WARNINGS: Final = 100
"""Warnings about single lines; more are only counted."""
EXTRA_FIELDS: Final = frozenset({"nologin", "allow_nets", "userdb_addresses"}) | SCRAM_FIELDS | QUOTA_FIELDS
"""The extra fields that are supported."""
_MOST_FIELDS: Final = 20
_RESTRICTIONS: Final = frozenset({"allow_real_nets", "fail", "k5principals", "delay_until"})
"""Extra fields by which Dovecot refuses logins."""

_INSTEAD: Final = {
    "userdb_quota": f"{', '.join(sorted(QUOTA_FIELDS))} and [quota] limit what an account has",
    "userdb_mail": "[mail] root and location say where mail is",
    "userdb_sieve": "there is no Sieve",
    "userdb_acl": "there are no ACLs",
    "userdb_namespace": "[mail] separator and prefix hold for all users",
}
"""By the prefix of a Dovecot field: the feature to use instead."""


def read_text(path: Path, largest: int = MAX_FILE) -> tuple[str, os.stat_result]:
    """The text, and the stat of the same file. Raises: OSError, ValueError."""
    # O_NONBLOCK: opening a FIFO must not block the reactor.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"it is larger than {largest} octets")
    # A line that is not UTF-8 has no user; other lines must not be affected.
    return data.decode("utf-8", "surrogateescape"), status


def check(path: Path) -> list[Problem]:
    """Find the problems of a users file: an error if nobody can log in by it, else warnings."""
    file = str(path)
    try:
        text, status = read_text(path)
    except (OSError, ValueError) as error:
        return [Problem(file, "", "", f"the users file cannot be read: {getattr(error, 'strerror', None) or error}")]
    checker = _Check(file)
    if status.st_mode & 0o007:
        checker.warn("", "", "others may open this file: chmod o= it")
    for number, line in _numbered(text):
        checker.check_line(number, line)
    return checker.finish()


@define
class _Check:
    """The check of one file."""

    file: str
    problems: list[Problem] = field(factory=list)
    _left_out: int = 0
    _first: dict[str, int] = field(factory=dict)
    """The line of each user."""
    _unknown: dict[str, tuple[int, str, int]] = field(factory=dict)
    """Unsupported extra fields: the first line, its user, the number of lines."""

    def warn(self, place: str, value: str, reason: str, near: str = "") -> None:
        """Add one warning, while there is room."""
        if len(self.problems) < MAX_WARNINGS:
            self.problems.append(Problem(self.file, place, value, reason, near, warning=True))
        else:
            self._left_out += 1

    def check_line(self, number: int, line: str) -> None:
        """Check a line that has a user."""
        try:
            entry = parse_line(line)
        except (BadLine, BadName) as error:
            self.warn(f"line {number}", "", f"{error}; nobody can log in by this line")
            return
        place = f"line {number} user {entry.name}"
        if entry.name in self._first:
            self.warn(place, "", f"is on line {self._first[entry.name]} already; that line is used")
            return
        self._first[entry.name] = number
        for sentence in sorted(faults(entry)):
            self.warn(place, "", sentence)
        for value, reason in (*_network_faults(entry), *quota_faults(entry)):
            self.warn(place, value, reason)
        for name in entry.extra.keys() - EXTRA_FIELDS:
            line_number, user, count = self._unknown.get(name, (number, entry.name, 0))
            self._unknown[name] = (line_number, user, count + 1)
        self._check_password(place, entry)

    def finish(self) -> list[Problem]:
        """All problems, and the number of warnings left out."""
        problems, self.problems = self.problems, []
        if self._left_out:
            problems.append(Problem(self.file, "", "", f"and {self._left_out} more warnings like these", warning=True))
        names = sorted(self._unknown, key=lambda name: (name not in _RESTRICTIONS, name))
        for name in names[:_MOST_FIELDS]:
            number, user, count = self._unknown[name]
            place = f"line {number} user {user}"
            more = f", here and on {count - 1} more lines" if count > 1 else ""
            reason = f"this extra field is not supported{more}: {_effect(name)}"
            problems.append(Problem(self.file, place, name[:40], reason, warning=True))
        if len(names) > _MOST_FIELDS:
            reason = f"and {len(names) - _MOST_FIELDS} other extra fields that are not supported"
            problems.append(Problem(self.file, "", "", reason, warning=True))
        return problems

    def _check_password(self, place: str, entry: PasswdEntry) -> None:
        if not entry.stored:
            if not entry.disabled:
                self.warn(place, "", "has no password and cannot log in; write `!` to disable the user explicitly")
            return
        cure = f"the user cannot log in until `mailserver user password {entry.name}` sets another"
        try:
            scheme = schemes.parse(entry.stored).scheme
        except schemes.UnknownScheme as error:
            near = schemes.nearest_name(error.name)
            known = "" if error.name == "CRYPT" else f"; known: {', '.join(schemes.SCHEMES)}"
            self.warn(place, f"{{{error.name[:40]}}}", f"{error}{known}; {cure}", near)
        except schemes.BadHash as error:
            self.warn(place, "", f"{error}; {cure}")
        else:
            if scheme.is_weak:
                reason = (
                    "is quick to guess: it lets the user in only with weak_schemes = true in [auth]; set a new password"
                )
                self.warn(place, f"{{{scheme.name}}}", reason)
            elif scheme.name == "PLAIN":
                self.warn(place, "{PLAIN}", "the password is stored in clear text")


def _effect(name: str) -> str:
    """The effect of an unsupported extra field, and what to use instead."""
    if name in _RESTRICTIONS:
        return "it restricts nobody here"
    instead = next((words for start, words in _INSTEAD.items() if name.startswith(start)), "")
    return f"it has no effect here; {instead}" if instead else "it has no effect here"


def _network_faults(entry: PasswdEntry) -> Iterator[tuple[str, str]]:
    if entry.networks is None:
        return
    for text in entry.networks:
        if text == LOCAL_NETWORK:
            continue
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            yield f"allow_nets={text[:40]}", "is not an address or network, and matches nobody"
    if not entry.networks:
        yield "allow_nets=", "is empty: the user can log in from nowhere"


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """Lines that have a user, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), 1):
        if name_of(line) is not None:
            yield number, line
