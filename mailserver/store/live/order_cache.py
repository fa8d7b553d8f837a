"""A cache of sorted and threaded mailboxes: webmail asks for the same order of the same mailbox every few seconds.

The values that messages are ordered by never change. So an order holds for as long as the same messages are there, and
can be extended by new ones. An entry has the UIDs that it was made of: a view's array only grows, and is replaced by an
expunge, so that the same array and number of messages mean the same messages. Used on the reactor's thread.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from mailserver.store.view import View

if TYPE_CHECKING:
    from mailserver.store.live.mailbox import LiveMailbox

_EACH: Final = 500
"""Octets of an entry beside its arrays and text."""


@frozen
class KeptOrder:
    """The order of the first messages of a mailbox."""

    uids: array[int] = field(repr=False)
    count: int
    """Of the messages `uids[:count]`."""
    positions: array[int] = field(repr=False)
    """Their positions, in order; type code "I"."""

    @property
    def weight(self) -> int:
        """Octets."""
        return 8 * self.count + _EACH


@frozen
class _Answer:
    uids: array[int] = field(repr=False)
    count: int
    positions: range | bytes
    """The messages that it is about, or a digest of these."""
    text: bytes = field(repr=False)

    @property
    def weight(self) -> int:
        return len(self.text) + 4 * self.count + _EACH


class OrderCache:
    """The cache of a worker, for all its accounts. Entries that were not used for the longest time go first."""

    def __init__(self, octets: int = 16 << 20) -> None:
        self.octets = octets
        """The bound."""
        self.octets_kept = 0
        self._entries: OrderedDict[tuple[int, Hashable], KeptOrder | _Answer] = OrderedDict()

    def answer(self, live: LiveMailbox, view: View, request: Hashable, positions: Sequence[int]) -> bytes | None:
        """Return the text that was made of these messages for that request."""
        found = self._get(live, _kind(request, positions))
        if (
            isinstance(found, _Answer)
            and found.uids is view.uids
            and found.count == view.count
            and found.positions == _named(positions)
        ):
            return found.text
        return None

    def keep_answer(
        self, live: LiveMailbox, view: View, request: Hashable, positions: Sequence[int], text: bytes
    ) -> None:
        """Keep the text made of these messages, in place of that made of others."""
        self._put(live, _kind(request, positions), _Answer(view.uids, view.count, _named(positions), text))

    def order(self, live: LiveMailbox, program: Hashable) -> KeptOrder | None:
        """Return the last order by that program, maybe of a mailbox that has changed since."""
        found = self._get(live, program)
        return found if isinstance(found, KeptOrder) else None

    def keep_order(self, live: LiveMailbox, view: View, program: Hashable, positions: Sequence[int]) -> None:
        """Keep the order of all messages of the view."""
        self._put(live, program, KeptOrder(view.uids, view.count, array("I", positions)))

    def forget_mailbox(self, live: LiveMailbox) -> None:
        """Drop a mailbox that is no longer kept, or was replaced."""
        for key in [key for key in self._entries if key[0] == live.serial]:
            self.octets_kept -= self._entries.pop(key).weight

    def _get(self, live: LiveMailbox, kind: Hashable) -> KeptOrder | _Answer | None:
        key = live.serial, kind
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def _put(self, live: LiveMailbox, kind: Hashable, entry: KeptOrder | _Answer) -> None:
        key = live.serial, kind
        before = self._entries.pop(key, None)
        if before is not None:
            self.octets_kept -= before.weight
        if entry.weight > self.octets or not live.account.keeps(live):
            return
        self._entries[key] = entry
        self.octets_kept += entry.weight
        while self.octets_kept > self.octets:
            _key, oldest = self._entries.popitem(last=False)
            self.octets_kept -= oldest.weight


def _kind(request: Hashable, positions: Sequence[int]) -> Hashable:
    """Keep two answers to a request: to one for all messages, and to one for some of them."""
    return "answer", request, isinstance(positions, range)


def _named(positions: Sequence[int]) -> range | bytes:
    return (
        positions if isinstance(positions, range) else blake2b(array("I", positions).tobytes(), digest_size=16).digest()
    )
