"""Both directions of a connection under COMPRESS=DEFLATE (RFC 4978), without I/O.

Memory: the compressor has a window of 4 KiB and 32 KiB in all, and none while it rests; text of IMAP becomes a tenth larger
than with the largest window, which takes 256 KiB. The client chooses its own window, so the decompressor needs 32 KiB for it
and some 10 KiB more.

A client may send a kilobyte that becomes a megabyte. So no more is decompressed than the reader has room for, and
the rest stays compressed until the next call.
"""

from __future__ import annotations

import zlib
from typing import Final

from mailserver.session.channel import CorruptInput

LEVEL: Final = 3
WINDOW: Final = 12
"""Base-2 logarithm of the compressor's window, octets."""
MEMORY: Final = 5
"""zlib's memLevel: 2 ** (MEMORY + 9) octets of hash chains and pending output."""
AT_ONCE: Final = 16 * 1024
"""Octets that one call decompresses at most."""
MOST_EMPTY: Final = 64 * 1024
"""Compressed octets in a row that decompress to nothing; DEFLATE allows empty blocks without end."""


class DeflateStream:
    """The compressor and the decompressor of one connection: raw DEFLATE (RFC 1951)."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._deflater: zlib._Compress | None = None
        self._compressed = b""
        """Octets of the client that are not decompressed yet."""
        self._has_more = False
        """Has the last call filled its room? Then the decompressor may have more without further input."""
        self._empty = 0

    @property
    def unread(self) -> int:
        """Compressed octets of the client that wait to be read."""
        return len(self._compressed)

    def compress(self, data: bytes) -> bytes:
        """Compress octets up to a flush: the client can decompress all of them."""
        deflater = self._deflater
        if deflater is None:
            # Raw blocks without references to earlier octets continue any stream that ends in a flush.
            deflater = self._deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW, MEMORY)
        return deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)

    def rest(self) -> None:
        """Release the compressor's memory; the next octets are compressed without reference to earlier ones."""
        self._deflater = None

    def feed(self, data: bytes) -> None:
        """Take compressed octets of the client."""
        self._compressed += data

    def read(self) -> bytes:
        """Return the next octets, at most AT_ONCE; none if more input is needed. Raises: CorruptInput."""
        if not self._compressed and not self._has_more:
            return b""
        inflater = self._inflater
        if inflater.eof:
            raise CorruptInput("the compressed data has ended")
        before = len(self._compressed)
        try:
            data = inflater.decompress(self._compressed, AT_ONCE)
        except zlib.error:
            raise CorruptInput("the compressed data is corrupt") from None
        self._compressed = inflater.unused_data or inflater.unconsumed_tail
        self._has_more = len(data) == AT_ONCE or inflater.eof
        self._empty = 0 if data else self._empty + before - len(self._compressed)
        if self._empty > MOST_EMPTY:
            raise CorruptInput("the compressed data decompresses to nothing")
        if not data and inflater.eof:
            raise CorruptInput("the compressed data has ended")
        return data
