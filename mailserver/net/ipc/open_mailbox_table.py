"""The mailboxes that each worker may have open, and which of these others have changed: memory that all workers share.

A worker has a row of twice SLOTS octets: marks, then change flags. A mark is not 0 while a mailbox is open whose id has
that slot. A mark too many costs a poke. A mark too few would hide a change until the next comparison: so a worker sets it
before it reads the mailbox, a worker that changes a mailbox looks after the commit, and `opened` returns False if the mark
was removed meanwhile, as its slot is shared; then the mailbox is read again. Either the reader finds the change, or the
other worker finds the mark.

A change flag makes a change known before its command is answered, while the poke is still on its way: the worker that
changes a mailbox sets the flags of all workers with the mark, after the commit and before the answer. A worker that finds
its flag set clears it first, then reads the changes. So no flag is lost: one that is set later is for a later command. It
needs no atomic addition, as one worker clears and all others only set.

A worker that writes nonsense here causes reads too many in others, or delays changes until the poke or the comparison.

The master makes the memory. Its size is sealed, as a worker that shrinks it would end all others (SIGBUS).
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final
from zlib import crc32

from mailserver.types import MailboxId

SLOTS: Final = 16 * 1024
ROW: Final = 2 * SLOTS
"""Octets of a worker."""
_MARKED: Final = 1
"""By `mark`: the next `opened` is certain to have missed nothing."""
_OPEN: Final = 2
_F_ADD_SEALS: Final = 1033
_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1, 2, 4
"""fcntl(2); Python's module has no names for them."""


def make_memory(workers: int) -> io.FileIO:
    """Make memory with rows for so many worker numbers. Raises: OSError."""
    descriptor = os.memfd_create("mailserver-open-mailboxes", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, workers * ROW)
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _SEAL | _SEAL_SHRINK | _SEAL_GROW)
    return io.FileIO(descriptor, "r+")


def map_memory(descriptor: int) -> mmap.mmap:
    """Map the memory, shared, and close the descriptor. Raises: OSError."""
    try:
        return mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class OpenMailboxTable:
    """The table as one worker sees it: it writes the marks of its own row, and the change flags of the others."""

    def __init__(self, memory: mmap.mmap | bytearray, worker: int) -> None:
        self._memory = memory
        self._worker = worker
        self._marks = worker * ROW
        self._flags = worker * ROW + SLOTS
        self._open: dict[int, list[MailboxId]] = {}
        """Slot -> own mailboxes that are open."""

    def clear(self) -> None:
        """Remove the marks and flags of an earlier worker with this number."""
        self._memory[self._marks : self._marks + ROW] = bytes(ROW)

    def mark(self, mailbox: MailboxId) -> None:
        """Set the mark before the mailbox is read; on any thread. `opened` follows."""
        self._memory[self._marks + crc32(mailbox) % SLOTS] = _MARKED

    def opened(self, mailbox: MailboxId) -> bool:
        """Keep the mark until `closed`. Return False if it, or a flag, was removed after `mark`: then the mailbox must be read again."""
        slot = crc32(mailbox) % SLOTS
        self._open.setdefault(slot, []).append(mailbox)
        certain = self._memory[self._marks + slot] == _MARKED
        self._memory[self._marks + slot] = _OPEN
        return certain

    def closed(self, mailbox: MailboxId) -> None:
        """Remove the mark, unless another open mailbox has it too."""
        slot = crc32(mailbox) % SLOTS
        mailboxes = self._open[slot]
        mailboxes.remove(mailbox)
        if not mailboxes:
            del self._open[slot]
            # In this order: a thread that marks the slot meanwhile finds its mark removed if it may have lost a flag.
            self._memory[self._flags + slot] = 0
            self._memory[self._marks + slot] = 0

    def may_be_open(self, mailbox: MailboxId, worker: int) -> bool:
        """Tell whether that worker may have the mailbox open."""
        return self._memory[worker * ROW + crc32(mailbox) % SLOTS] != 0

    def set_changed(self, mailbox: MailboxId) -> None:
        """Set the change flags of all other workers that may have the mailbox open: after the commit, before the answer."""
        slot = crc32(mailbox) % SLOTS
        marks = self._memory[slot::ROW]
        if marks.count(0) == len(marks):
            return
        for worker, mark in enumerate(marks):
            if mark and worker != self._worker:
                self._memory[worker * ROW + SLOTS + slot] = 1

    def change_flag(self, mailbox: MailboxId) -> Callable[[], int]:
        """Return a function that reads this worker's change flag of a mailbox: true if another worker may have changed it."""
        return partial(self._memory.__getitem__, self._flags + crc32(mailbox) % SLOTS)

    def take_changed(self, mailbox: MailboxId) -> Sequence[MailboxId]:
        """Clear the flag; return the open mailboxes that share it, which must be read again. The memory is read after this.

        Reading takes the locks of a thread, so no processor does it before the flag is cleared.
        """
        slot = crc32(mailbox) % SLOTS
        if not self._memory[self._flags + slot]:
            return ()
        self._memory[self._flags + slot] = 0
        if self._memory[self._marks + slot] == _MARKED:
            # A mailbox with this slot is being read in a thread, perhaps before the change.
            self._memory[self._marks + slot] = _OPEN
        return tuple(self._open.get(slot, ()))
