"""A message from its first octet until it is delivered: bounded in memory, checked while it comes.

The first failure is kept and all later octets are dropped, so that the stream is read to the message's end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

from mailserver.dkim.canonical import MessageDigest
from mailserver.errors import MailError, TooBig
from mailserver.message.content import read_content
from mailserver.message.header_size import HeaderSizeChecker
from mailserver.message.headers import header_end
from mailserver.message.limits import MAX_HEADER
from mailserver.message.structure import has_8bit_header
from mailserver.queue.interfaces import Content
from mailserver.smtp.spool import Spool, SpoolFile
from mailserver.smtp.wire import LineEnds

PIECE = 64 * 1024
"""Octets of one piece."""
IN_MEMORY = 128 * 1024
"""A message up to this size never touches the spool."""


class Incoming:
    """One message. `failure` is the reason for its refusal, if there is one."""

    def __init__(
        self,
        spool: Spool,
        limit: int,
        yield_to_others: Callable[[], Awaitable[None]],
        digest: MessageDigest | None = None,
    ) -> None:
        """`yield_to_others` is awaited in long work, so that other clients get their turn.

        `digest` gets the message: in the thread of the spool what goes there, so that nothing large is read again.
        """
        self.size = 0
        """Octets so far, without dot-stuffing (RFC 1870 5); of the finished message, with the replaced start."""
        self.eight_bit = False
        """Is there an octet above 127?"""
        self.failure: MailError | None = None
        self._spool = spool
        self._limit = limit
        self._yield_to_others = yield_to_others
        self._memory = bytearray()
        self._file: SpoolFile | None = None
        self._spooled = 0
        self._ends = LineEnds()
        self._headers = HeaderSizeChecker()
        self._start = b""
        self._replaced = 0
        self._digest = digest

    @property
    def in_memory(self) -> bytes | None:
        """The whole message, if it is in memory."""
        return None if self._file else self._start + self._memory[self._replaced :]

    @property
    def content(self) -> Content:
        """The finished message. The descriptor of one in a file is valid until `close`."""
        if self._file is None:
            text = self.in_memory
            assert text is not None
            return Content(text)
        return Content(self._start, (self._file.descriptor, self._replaced, self.size - len(self._start)))

    async def write(self, data: bytes) -> None:
        """Add the next part. Never raises a MailError: see `failure`."""
        if self.failure is not None or not data:
            return
        try:
            self.size += len(data)
            if self.size > self._limit:
                raise TooBig(f"the message is larger than {self._limit} octets")
            self._ends.check(data)
            for _ in self._headers.writing(data):
                await self._yield_to_others()
            self.eight_bit = self.eight_bit or not data.isascii()
            self._memory += data
            if len(self._memory) > (PIECE if self._file else IN_MEMORY):
                await self._flush()
        except MailError as error:
            await self.fail(error)

    async def finish(self) -> None:
        """End the message; its last line gets a CRLF if it has none. See `failure`."""
        if self.failure is not None:
            return
        try:
            self._ends.finish()
            if not self._ends.complete:
                await self.write(b"\r\n")
            for _ in self._headers.finishing():
                await self._yield_to_others()
            if self._file and self._memory:
                await self._flush()
        except MailError as error:
            await self.fail(error)

    async def read(self, offset: int, count: int) -> bytes:
        """Those octets of the finished message, fewer at the end. Raises: StoreUnavailable."""
        first = self._start[offset : offset + count]
        offset += len(first) + self._replaced - len(self._start)
        count -= len(first)
        if self._file:
            return first + await self._file.read(offset, count)
        return first + self._memory[offset : offset + count]

    async def has_utf8_header(self) -> bool:
        """Has the finished message 8-bit octets in header fields, its own or of a part (RFC 6531)?

        Of a message that is not in memory, and has parts and 8-bit octets, that is assumed. Raises: StoreUnavailable.
        """
        if not self.eight_bit:
            return False
        start = await self.read(0, MAX_HEADER)
        end = header_end(start)
        if not start[:end].isascii():
            return True
        if read_content(start[:end]).family not in (b"multipart", b"message"):
            return False
        text = self.in_memory
        return text is None or has_8bit_header(text)

    def body_hash(self) -> bytes | None:
        """The digest of the finished message, None if it has none. Once."""
        digest, self._digest = self._digest, None
        if digest is None:
            return None
        if self._file is None:
            digest.update(bytes(self._memory))
        return digest.digest()

    def replace_start(self, length: int, start: bytes) -> None:
        """Replace the first `length` octets of the finished message by `start`. Once."""
        self._start, self._replaced = start, length
        self.size += len(start) - length

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The finished message, in order. Raises: StoreUnavailable."""
        at = 0
        while at < self.size and (piece := await self.read(at, PIECE)):
            yield piece
            at += len(piece)

    async def close(self) -> None:
        """Drop the message. Harmless when repeated."""
        self._memory.clear()
        if self._file:
            file, self._file = self._file, None
            await file.close()

    async def fail(self, error: MailError) -> None:
        """Refuse the message and drop its octets, also those that come later."""
        self.failure = error
        await self.close()

    async def _flush(self) -> None:
        if self._file is None:
            self._file = self._spool.create()
        data = bytes(self._memory)
        self._memory.clear()
        await self._file.write(data, None if self._digest is None else self._digest.update)
        self._spooled += len(data)
