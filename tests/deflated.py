"""The client's side of COMPRESS=DEFLATE on a socket (RFC 4978)."""

from __future__ import annotations

import socket
import zlib


class DeflatedSocket:
    """What a client of the tests uses of a socket, compressed."""

    def __init__(self, below: socket.socket, level: int = 6) -> None:
        self.below = below
        self._deflater = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self.octets = 0
        """Compressed octets that have come."""

    def compressed(self, data: bytes) -> bytes:
        return self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)

    def sendall(self, data: bytes) -> None:
        self.below.sendall(self.compressed(data))

    def recv(self, size: int) -> bytes:
        """No octets at the end alone."""
        while data := self.below.recv(size):
            self.octets += len(data)
            if plain := self._inflater.decompress(data):
                return plain
        return b""

    def close(self) -> None:
        self.below.close()
