"""The spool of messages while they are received: small ones stay in memory, others are in a file that has no name.

Nothing here needs to survive a crash: no reply has been given for a message that is only spooled.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from typing import Protocol

from mailserver.errors import NoSpace, StoreUnavailable
from mailserver.store.interfaces import StoreRunner


class SpoolFile(Protocol):
    """One message's file."""

    async def write(self, data: bytes, also: Callable[[bytes], None] | None = None) -> None:
        """Append bytes; `also` gets them in the same thread. Raises: NoSpace, StoreUnavailable."""

    async def read(self, offset: int, count: int) -> bytes:
        """Those bytes, fewer at the end. Raises: StoreUnavailable."""

    @property
    def descriptor(self) -> int:
        """The file's descriptor, until it is closed: any thread may read the octets written so far, by offset."""

    async def close(self) -> None:
        """Close the file. Harmless when repeated."""


class Spool(Protocol):
    """Makes spool files."""

    def create(self) -> SpoolFile:
        """A new file, of which nothing is on disk before the first write."""


class FileSpool:
    """A `Spool` in a directory, which is created if it is missing."""

    def __init__(self, directory: str, make_runner: Callable[[], StoreRunner]) -> None:
        self._directory = directory
        self._make_runner = make_runner

    def create(self) -> SpoolFile:
        """An unlinked file."""
        return _File(self._directory, self._make_runner())


class _File:
    def __init__(self, directory: str, runner: StoreRunner) -> None:
        self._directory = directory
        self._runner = runner
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        return self._descriptor

    async def write(self, data: bytes, also: Callable[[bytes], None] | None = None) -> None:
        await self._runner.run(lambda: self._write(data, also))

    async def read(self, offset: int, count: int) -> bytes:
        return await self._runner.run(lambda: self._read(offset, count))

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            await self._runner.run(lambda: os.close(descriptor))

    def _write(self, data: bytes, also: Callable[[bytes], None] | None) -> None:
        try:
            if self._descriptor < 0:
                # The name is removed at once: the file then ends with the process at the latest.
                os.makedirs(self._directory, mode=0o700, exist_ok=True)
                self._descriptor, path = tempfile.mkstemp(prefix="spool-", dir=self._directory)
                os.unlink(path)
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]
            if also is not None:
                also(data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise NoSpace from error
            raise StoreUnavailable from error

    def _read(self, offset: int, count: int) -> bytes:
        try:
            return os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise StoreUnavailable from error
