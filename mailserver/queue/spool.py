"""Spool files `msg/NAME`: a line of JSON (format, envelope, recipients, size), then the message.

A file is written under its final name and synced; without a row it does not exist. The line is read by `rebuild` alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from mailserver.errors import BadSyntax, MailError, StorageFailure
from mailserver.queue import disk
from mailserver.queue.interfaces import Content, Spooled
from mailserver.queue.model import Envelope, Message, MessageMissing, Target

FORMAT: Final = 1
MAX_LINE: Final = 16 << 20
"""Octets of the JSON line."""
_MAX_NUMBER: Final = 1 << 52
_NAME: Final = re.compile(r"[0-9a-f]{20}")
_log = logging.getLogger(__name__)


class Spool:
    """The directory of spool files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, envelope: Envelope, targets: Sequence[Target], content: Content) -> Spooled:
        """Write and sync a file; its name is not synced. Raises: NoSpace, StorageFailure, BadSyntax."""
        envelope.check()
        if not targets:
            raise BadSyntax("a message needs a recipient")
        for target in targets:
            target.check()
        size = len(content.start) + (content.rest[2] if content.rest else 0)
        line = _line(envelope, targets, size)
        name, fd = self._create()
        path = self.directory / name
        try:
            try:
                with disk.boundary():
                    disk.write(fd, line + content.start, 0)
                    if content.rest is not None:
                        _copy(*content.rest, fd, len(line) + len(content.start))
                    disk.point("spool.before-sync")
                    disk.sync(fd)
            finally:
                os.close(fd)
        except BaseException:
            self.remove(name)
            raise
        disk.point("spool.written")
        return Spooled(path.name, len(line), size, envelope, tuple(targets))

    def _create(self) -> tuple[str, int]:
        while True:
            name = f"{time.time_ns() // 1000:014x}"[-14:] + secrets.token_hex(3)
            with disk.boundary(), contextlib.suppress(FileExistsError):
                return name, disk.create(self.directory / name)

    def sync_names(self) -> None:
        """Make the names of all files survive a power cut. Raises: NoSpace, StorageFailure."""
        with disk.boundary():
            disk.sync_directory(self.directory)

    def remove(self, name: str) -> None:
        """Remove a file that nobody needs. A failure is logged: the sweep tries again."""
        try:
            disk.unlink(self.directory / name)
        except OSError as error:
            _log.warning("spool file %s could not be removed; a sweep tries again: %s", name, error)

    def expect(self, name: str, length: int) -> None:
        """Look at a file. Raises: MessageMissing if it is missing or has another length."""
        try:
            status = os.stat(self.directory / name, follow_symlinks=False)
        except OSError as error:
            raise MessageMissing from error
        if not stat.S_ISREG(status.st_mode) or status.st_size != length:
            raise MessageMissing

    def open(self, message: Message) -> int:
        """Open the file of a message for reading. Raises: MessageMissing, StorageFailure."""
        with disk.boundary():
            fd = os.open(self.directory / message.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != message.start + message.size:
            os.close(fd)
            raise MessageMissing
        return fd

    def names(self) -> Iterator[str]:
        """Yield the names of all spool files, in no order. Raises: StorageFailure."""
        with disk.boundary(), os.scandir(self.directory) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    yield entry.name

    def age(self, name: str, now: int) -> int:
        """Return the seconds since a file was written; -1 if it is gone. Raises: StorageFailure."""
        try:
            return max(0, now - int(os.stat(self.directory / name, follow_symlinks=False).st_mtime))
        except FileNotFoundError:
            return -1
        except OSError as error:
            raise disk.failure(error) from error

    def parse(self, name: str) -> Spooled:
        """Read the line of a file. Raises: MessageMissing for a file that is not whole, StorageFailure."""
        with disk.boundary(), open(self.directory / name, "rb") as file:
            line = file.readline(MAX_LINE + 1)
            length = os.fstat(file.fileno()).st_size
        spooled = parse_line(name, line)
        if length != spooled.start + spooled.size:
            raise MessageMissing
        return spooled


def parse_line(name: str, line: bytes) -> Spooled:
    """Parse and check the first line of the file of that name. Raises: MessageMissing."""
    try:
        return _parse(name, line)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MailError) as error:
        raise MessageMissing from error


def _parse(name: str, line: bytes) -> Spooled:
    document = json.loads(line)
    if not line.endswith(b"\n") or document["format"] != FORMAT:
        raise ValueError("another format")
    size = document["size"]
    envelope: Envelope = _build(Envelope, document["envelope"])
    targets: tuple[Target, ...] = tuple(_build(Target, each) for each in document["targets"])
    envelope.check()
    for target in targets:
        target.check()
    if (
        not targets
        or type(size) is not int
        or not 0 <= size <= _MAX_NUMBER
        or not 0 <= envelope.received <= _MAX_NUMBER
    ):
        raise ValueError("no recipient, or a number that cannot be")
    return Spooled(name, len(line), size, envelope, targets)


def _build(kind: type[Any], document: dict[str, Any]) -> Any:
    """Make a value of texts, numbers and truth values, whose types are those of its defaults."""
    fields = {each.name: each for each in attrs.fields(kind)}
    for name, value in document.items():
        if type(value).__name__ not in {"int": ("int",), "bool": ("bool",), "str | None": ("str", "NoneType")}.get(
            str(fields[name].type), ("str",)
        ):
            raise TypeError(name)
    return kind(**document)


def _line(envelope: Envelope, targets: Sequence[Target], size: int) -> bytes:
    document = {
        "format": FORMAT,
        "envelope": attrs.asdict(envelope),
        "targets": [attrs.asdict(target) for target in targets],
        "size": size,
    }
    line = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
    if len(line) > MAX_LINE:
        raise BadSyntax("the envelope is too long")
    return line


def _copy(source: int, offset: int, count: int, target: int, at: int) -> None:
    """Copy octets of an open file. Raises: OSError; StorageFailure if the file ends too soon."""
    while count:
        data = os.pread(source, min(count, disk.CHUNK), offset)
        if not data:
            raise StorageFailure("the message could not be read again")
        disk.write(target, data, at)
        offset, at, count = offset + len(data), at + len(data), count - len(data)
