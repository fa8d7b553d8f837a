"""Iteration over the octets of many messages: small ones are read together, and one large one is held at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from mailserver.errors import MessageExpunged, StoreUnavailable
from mailserver.store.maildir.format.message_file import PlainFile
from mailserver.store.memory_budget import MemoryBudget
from mailserver.types import UID

READ_AHEAD: Final = 256
"""Messages requested from the index at once."""
AT_ONCE: Final = 1 << 20
"""Octets of small messages that are held at once."""
FEW: Final = 16
LITTLE: Final = 128 * 1024
"""`read_ahead` and `at_once` of a caller that stops after about as much."""


class Readable(Protocol):
    """A mailbox whose messages can be read."""

    def read_whole(self, uids: Sequence[UID], limit: int) -> Sequence[tuple[UID, bytes]]:
        """See `Mailbox`."""

    def open_message(self, uid: UID) -> PlainFile:
        """See `Mailbox`."""


def contents(
    messages: Readable,
    uids: Sequence[UID],
    memory: MemoryBudget,
    read_ahead: int = READ_AHEAD,
    at_once: int = AT_ONCE,
) -> Iterator[tuple[UID, bytes | None]]:
    """Yield the messages that exist and can be read; None while there is no memory for the next one.

    `read_ahead` and `at_once` are for a caller that may stop soon: what is read ahead is then read for nothing.
    """
    at = 0
    while at < len(uids):
        found = messages.read_whole(uids[at : at + read_ahead], at_once)
        yield from found
        at += len(found)
        if not found:
            # Large, gone, unreadable, or not at the indexed place.
            yield from _one(messages, uids[at], memory)
            at += 1


def _one(messages: Readable, uid: UID, memory: MemoryBudget) -> Iterator[tuple[UID, bytes | None]]:
    """Yield one message if it exists. Its octets count as held until the next one is requested."""
    try:
        message = messages.open_message(uid)
    except (MessageExpunged, StoreUnavailable):
        return
    try:
        size = message.size
        while not memory.take(size):
            yield uid, None
        try:
            yield uid, message.read()
        finally:
            memory.give_back(size)
    finally:
        message.close()
