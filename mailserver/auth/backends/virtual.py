"""The source of addresses `virtual:PATH`: aliases in a file of Postfix's format (virtual(5)), reread when it changes.

    info@example.org     anna@example.org, ben@example.org
    info                 anna@example.org          a name of the default domain
    @example.net         @example.org              all addresses of a domain are those of another
    @example.org         anna@example.org          the catch-all

A line that begins with white space continues the one before; `#` begins a comment line. An address that names itself among
its targets is that user, who alone may send as it. A user may send as other addresses that lead to it directly.

Two differences from Postfix: the first line of an address counts, and a `@domain` line whose only target is an `@domain`
makes a domain of this server. While the file is unreadable or has a faulty line, the last good content stays in use; at the
start the lines that can be used are.

A file that is half written must lose nobody's address, nor cut one short. So a change is read once two looks, a second apart,
have found the same; a file that changes while it is read, that has become empty, or whose last line has no end is faulty. A writer that
stops at the end of a line for longer is not noticed: a new file must be moved over the old one.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from attrs import frozen
from zope.interface import implementer

from mailserver.auth.backends.users_file import read_text
from mailserver.auth.backends.watched_file import Content, WatchedFile, is_unchanged, read_content
from mailserver.auth.interfaces import DomainEntry, Entry, Hasher, IAddresses, IReadsAhead
from mailserver.auth.schemes.mail_address import normalise_address
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.config.model import Problem

MAX_FILE: Final = 16 * 1024 * 1024
"""Largest file read, octets: some 400,000 lines, which take about eight times the memory in each worker."""
MAX_FAULTS: Final = 100
_LOOKS: Final = 2
"""Looks that must find the same change."""
_PARTS: Final = re.compile(r"[\s,]+")

_log = logging.getLogger(__name__)


class BadAliases(ValueError):
    """A line cannot be used. The argument names it and the fault."""


@frozen
class Aliases:
    """The content of a file."""

    targets: Mapping[str, str]
    """The rest of the line, by address in lower case."""
    domains: Mapping[str, str]
    """The domain that each stands for."""
    faults: tuple[str, ...] = ()
    """Of lines that cannot be used, at most MAX_FAULTS."""


def parse(text: str) -> Aliases:
    """Read the content."""
    targets: dict[str, str] = {}
    domains: dict[str, str] = {}
    faults: list[str] = []
    # A line without an end may be the beginning of a longer one.
    whole = text.rfind("\n") + 1
    number, line = 0, ""
    for number, line in _logical_lines(text[:whole]):
        try:
            _parse_line(line, targets, domains)
        except (BadAliases, BadName) as error:
            if len(faults) < MAX_FAULTS:
                faults.append(f"line {number}: {error}")
    reason = ""
    if whole < len(text):
        number, reason = (
            text.count("\n") + 1,
            "the last line does not end in a line feed, as if the file were cut short",
        )
    elif line.rstrip().endswith(","):
        reason = "the last line ends in a comma, as if the file were cut short"
    if reason and len(faults) < MAX_FAULTS:
        faults.append(f"line {number}: {reason}")
    return Aliases(targets, domains, tuple(faults))


def _parse_line(line: str, targets: dict[str, str], domains: dict[str, str]) -> None:
    """Raises: BadAliases, BadName."""
    key, _, rest = line.strip().partition(" ")
    if line[0] == " ":
        raise BadAliases("it continues no line: an address begins at the margin")
    names = _names(rest)
    if not names:
        raise BadAliases(f"{key!r} has no target")
    key = _normal(key)
    for name in names:
        _normal(name)
    if not any(name.startswith("@") for name in names):
        targets.setdefault(key, rest)
    elif not key.startswith("@"):
        raise BadAliases("an address cannot lead to all addresses of a domain")
    elif len(names) > 1:
        raise BadAliases("a domain stands for one other domain")
    else:
        domains.setdefault(key[1:], _normal(names[0])[1:])


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with its continuations, and its number."""
    number, parts = 0, [""]
    for at, line in enumerate(_lines(text), 1):
        # Comments, also indented ones, and empty lines do not end a line (virtual(5)).
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] == " " and number:
            parts.append(line)
            continue
        if number:
            yield number, " ".join(parts)
        number, parts = at, [line]
    if number:
        yield number, " ".join(parts)


def _lines(text: str) -> Iterator[str]:
    """The lines one by one, without their ends: a list of all would take more memory than the aliases."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end].replace("\t", " ")
        start = end + 1


def _names(rest: str) -> list[str]:
    return [name for name in _PARTS.split(rest) if name]


def _normal(name: str) -> str:
    """Raises: BadName."""
    return f"@{normalise(name[1:])}" if name.startswith("@") else normalise_address(name)


@implementer(IAddresses, IReadsAhead)
class VirtualAliases:
    """The aliases of one file. Not thread-safe, except `read_ahead`."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.monotonic, executor: Executor | None = None
    ) -> None:
        """`executor`: reads a changed file; a thread of its own if None."""
        self._is_used = False
        self._file = WatchedFile(
            path,
            self._read,
            clock,
            executor,
            kept="the last good aliases stay valid",
            lost="mail is refused for now",
            looks=_LOOKS,
        )

    def find_address(self, name: str) -> Entry | None:
        """See IAddresses. Raises: AuthUnavailable if the file was never readable."""
        rest = self._file.current().targets.get(name)
        if rest is None:
            return None
        targets = tuple(dict.fromkeys(map(_normal, _names(rest))))
        # Who gets a copy of a user's mail must not write in the user's name.
        return Entry(targets, frozenset({name} if name in targets else targets))

    def find_domain(self, name: str) -> DomainEntry | None:
        """See IAddresses. Raises: AuthUnavailable if the file was never readable."""
        meant = self._file.current().domains.get(name)
        return None if meant is None else DomainEntry(meant)

    def reload(self) -> None:
        """See IReloadable. Blocks."""
        self._file.reload()

    def read_ahead(self) -> None:
        """See IReadsAhead."""
        self._file.read_ahead()

    def _read(self, path: Path) -> Content[Aliases]:
        """Raises: OSError, ValueError. May run in a thread."""
        content = read_content(path, parse, MAX_FILE)
        faults = content.value.faults
        if self._is_used:
            if faults:
                raise ValueError(faults[0])
            if not content.stamp.size:
                raise ValueError("it is empty; a comment line alone stands for no aliases")
            if not is_unchanged(content, path):
                raise ValueError("it changed while it was read")
        for fault in faults:
            _log.error("%s %s; this line is left out", path, fault)
        self._is_used = True
        return content


def make_backend(argument: str, hasher: Hasher) -> VirtualAliases:
    """The source of `virtual:PATH`. Raises: ValueError for a path that is not absolute."""
    del hasher
    return VirtualAliases(_path(argument))


def check_backend(argument: str) -> list[Problem]:
    """Find the first problem of the file, for the check of a configuration. Raises: ValueError for a bad argument."""
    path = _path(argument)
    try:
        faults = parse(read_text(path, MAX_FILE)[0]).faults
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return [Problem(str(path), "", "", f"the aliases cannot be read: {reason}")]
    return [Problem(str(path), "", "", fault, warning=True) for fault in faults]


def _path(argument: str) -> Path:
    if not argument.startswith("/"):
        raise ValueError("virtual: needs the absolute path of a file of aliases, as in virtual:/etc/postfix/virtual")
    return Path(argument)
