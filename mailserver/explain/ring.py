"""A ring of records in one file: SLOTS slots of SLOT octets, the oldest of which is overwritten.

Each record is one pwrite(2): a process that is killed leaves whole records, and a slot that was torn by a power cut does not fit
its checksum. A mapped file would end the process with SIGBUS on a full disk; a database would wait for the disk.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SLOTS: Final = 4096
SLOT: Final = 1024
_HEAD: Final = struct.Struct("<4sQHI")
"""Mark, number of the record (1 for the first of the file), octets of the record, their CRC-32."""
_MARK: Final = b"log1"
_LARGEST: Final = 1 << 60
"""Numbers from here on are damage."""
LONGEST: Final = SLOT - _HEAD.size
"""Octets of a record."""
_CHUNK: Final = 256 * SLOT


class RingUnusable(Exception):
    """The file cannot be used. The text says why."""


class Ring:
    """The writer's side. One process at a time writes a file."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it. Raises: OSError, RingUnusable."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._file = os.open(path, flags, 0o600)
        try:
            self._number = _last_number(self._file, _check(self._file, path, os.geteuid()))
        except BaseException:
            os.close(self._file)
            raise

    def write(self, record: bytes) -> None:
        """Overwrite the oldest record. Raises: OSError, with the ring as it was; ValueError for a record that is too long."""
        if len(record) > LONGEST:
            raise ValueError("the record does not fit into a slot")
        number = self._number + 1
        octets = _HEAD.pack(_MARK, number, len(record), zlib.crc32(record)) + record
        if os.pwrite(self._file, octets, (number - 1) % SLOTS * SLOT) == len(octets):
            self._number = number

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_ring(path: Path) -> Iterator[bytes]:
    """The whole records of a file, in the order of its slots. Torn slots are left out. Raises: OSError, RingUnusable."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _check(file, path, None)
        for slot in _slots(file):
            mark, _number, size, checksum = _HEAD.unpack_from(slot)
            record = slot[_HEAD.size : _HEAD.size + size]
            if mark == _MARK and len(record) == size and zlib.crc32(record) == checksum:
                yield record
    finally:
        os.close(file)


def _check(file: int, path: Path, owner: int | None) -> int:
    """The size. Raises: RingUnusable for a file that another program has put there."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise RingUnusable(f"{path} is not a regular file with one name")
    if owner is not None and status.st_uid != owner:
        raise RingUnusable(f"{path} belongs to another user")
    return status.st_size


def _last_number(file: int, size: int) -> int:
    """The number of the newest record: the file grows until the ring is full, then the numbers tell."""
    used = -(-size // SLOT)
    if used < SLOTS:
        return used
    heads = map(_HEAD.unpack_from, _slots(file))
    return max((number for mark, number, _, _ in heads if mark == _MARK and number < _LARGEST), default=SLOTS)


def _slots(file: int) -> Iterator[bytes]:
    for start in range(0, SLOTS * SLOT, _CHUNK):
        chunk = os.pread(file, _CHUNK, start)
        for at in range(0, len(chunk), SLOT):
            slot = chunk[at : at + SLOT]
            if len(slot) >= _HEAD.size:
                yield slot
        if len(chunk) < _CHUNK:
            return
