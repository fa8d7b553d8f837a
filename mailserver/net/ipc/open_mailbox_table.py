"""Which worker may have which mailbox open: memory that all workers share, so that a change pokes only those.

A worker has a row of SLOTS octets; an octet is 1 while a mailbox is open whose id has that slot. A mark too many costs a
poke. A mark too few would hide a change until the next comparison: so a worker sets it before it reads the mailbox, a
worker that changes a mailbox looks after the commit, and `opened` returns False if the mark was removed meanwhile, as its
slot is shared; then the mailbox is read again. Either the reader finds the change, or the other worker finds the mark.

The master makes the memory. Its size is sealed, as a worker that shrinks it would end all others (SIGBUS).
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
from typing import Final
from zlib import crc32

from mailserver.types import MailboxId

SLOTS: Final = 16 * 1024
_F_ADD_SEALS: Final = 1033
_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1, 2, 4
"""fcntl(2); Python's module has no names for them."""


def make_memory(workers: int) -> io.FileIO:
    """Make memory with rows for so many worker numbers. Raises: OSError."""
    descriptor = os.memfd_create("mailserver-open-mailboxes", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, workers * SLOTS)
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _SEAL | _SEAL_SHRINK | _SEAL_GROW)
    return io.FileIO(descriptor, "r+")


def map_memory(descriptor: int) -> mmap.mmap:
    """Map the memory, shared, and close the descriptor. Raises: OSError."""
    try:
        return mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class OpenMailboxTable:
    """The table as one worker sees it: it writes its own row and reads those of the others."""

    def __init__(self, memory: mmap.mmap | bytearray, worker: int) -> None:
        self._memory = memory
        self._own = worker * SLOTS
        self._open: dict[int, int] = {}
        """Slot -> number of own mailboxes that are open."""

    def clear(self) -> None:
        """Remove the marks of an earlier worker with this number."""
        self._memory[self._own : self._own + SLOTS] = bytes(SLOTS)

    def mark(self, mailbox: MailboxId) -> None:
        """Set the mark before the mailbox is read; on any thread. `opened` follows."""
        self._memory[self._own + crc32(mailbox) % SLOTS] = 1

    def opened(self, mailbox: MailboxId) -> bool:
        """Keep the mark until `closed`. Return False if it was removed after `mark`: then the mailbox must be read again."""
        slot = crc32(mailbox) % SLOTS
        self._open[slot] = self._open.get(slot, 0) + 1
        was_marked = self._memory[self._own + slot] != 0
        self._memory[self._own + slot] = 1
        return was_marked

    def closed(self, mailbox: MailboxId) -> None:
        """Remove the mark, unless another open mailbox has it too."""
        slot = crc32(mailbox) % SLOTS
        count = self._open.pop(slot) - 1
        if count:
            self._open[slot] = count
        else:
            self._memory[self._own + slot] = 0

    def may_be_open(self, mailbox: MailboxId, worker: int) -> bool:
        """Tell whether that worker may have the mailbox open."""
        return self._memory[worker * SLOTS + crc32(mailbox) % SLOTS] != 0
