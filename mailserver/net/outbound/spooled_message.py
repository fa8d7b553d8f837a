"""The octets of a queued message, read in a thread."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from mailserver.queue.model import Message, MessageMissing

PIECE: Final = 65536
"""Octets that are read at once. A message that is no longer costs one call of a thread."""


class SpooledMessage:
    """An open message. `close` it."""

    def __init__(self, message: Message, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._message = message
        self._in_thread = in_thread
        self._fd = -1
        self._first = b""

    async def open(self, opener: Callable[[Message], int]) -> None:
        """Open the file and read the first piece. Raises: MessageMissing, OSError."""

        def read_first() -> tuple[int, bytes]:
            fd = opener(self._message)
            try:
                return fd, self._read(fd, 0)
            except BaseException:
                os.close(fd)
                raise

        self._fd, self._first = await self._in_thread(read_first)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The message from its first octet on. Raises: MessageMissing, OSError."""
        yield self._first
        at = len(self._first)
        while at < self._message.size:
            piece = await self._in_thread(self._read, self._fd, at)
            at += len(piece)
            yield piece

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _read(self, fd: int, at: int) -> bytes:
        wanted = min(PIECE, self._message.size - at)
        piece = os.pread(fd, wanted, self._message.start + at)
        if len(piece) != wanted:
            raise MessageMissing
        return piece
