"""A cache of messages that were just read.

Clients come back to the newest messages, and read one message in parts. What is here is answered without a hop to a
thread. Rules:

*   Octets of a message never change, so nothing here is ever wrong. Nobody asks for messages that are gone.
*   Small messages and summaries are bounded in octets. Open files are bounded in number, and closed KEPT_OPEN after
    their last use, as an expunged one takes room on the disk until then.
*   A reader has a file alone: it is taken out, and put back afterwards.
*   Files are closed in the account's thread: the last close of an expunged file is work for the disk.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mailserver.message.summary import Summary
from mailserver.store.interfaces import MessageFile

if TYPE_CHECKING:
    from mailserver.store.live.mailbox import LiveMailbox

KEPT_OPEN: Final = 60.0
"""Seconds after its last use until a file is closed."""
_EACH: Final = 500
"""Octets of an entry beside its text."""

_Key = tuple[int, int]
"""Serial number of the mailbox in this worker, UID."""


def _never(_delay: float, _call: Callable[[], None]) -> object:
    return None


class MessageCache:
    """The cache of a worker, for all its accounts; used on the reactor's thread."""

    def __init__(
        self,
        *,
        octets: int = 16 << 20,
        files: int = 64,
        call_later: Callable[[float, Callable[[], None]], Any] = _never,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `call_later`, which returns an object with `cancel()`, files are closed only when others take their places."""
        self.octets = octets
        """The bound of cached octets. It may change at any time, as `files` may."""
        self.files = files
        """The bound of open files."""
        self.octets_kept = 0
        self._call_later = call_later
        self._seconds = seconds
        self._texts: OrderedDict[_Key, bytes] = OrderedDict()
        self._summaries: OrderedDict[_Key, Summary] = OrderedDict()
        self._files: OrderedDict[_Key, tuple[MessageFile, LiveMailbox, float]] = OrderedDict()
        self._timer: Any = None

    @property
    def files_kept(self) -> int:
        """The number of open files."""
        return len(self._files)

    # --- In memory

    def text(self, live: LiveMailbox, uid: int) -> bytes | None:
        """Return a small message, as sent."""
        key = live.serial, uid
        text = self._texts.get(key)
        if text is not None:
            self._texts.move_to_end(key)
        return text

    def keep_text(self, live: LiveMailbox, uid: int, text: bytes) -> None:
        """Cache a small message that was read."""
        key = live.serial, uid
        if key not in self._texts and len(text) + _EACH <= self.octets:
            self._texts[key] = text
            self.octets_kept += len(text) + _EACH
            self._trim()

    def summaries(self, live: LiveMailbox, uids: Iterable[int]) -> dict[int, Summary]:
        """Return the complete summaries that are cached."""
        kept, serial = self._summaries, live.serial
        found = {uid: kept[serial, uid] for uid in uids if (serial, uid) in kept}
        for uid in found:
            kept.move_to_end((serial, uid))
        return found

    def keep_summaries(self, live: LiveMailbox, summaries: Mapping[int, Summary]) -> None:
        """Cache summaries that were read, without those of the header alone."""
        kept, serial = self._summaries, live.serial
        for uid, summary in summaries.items():
            if (serial, uid) in kept or not summary.body or (weight := _weight(summary)) > self.octets:
                continue
            kept[serial, uid] = summary
            self.octets_kept += weight
        self._trim()

    def _trim(self) -> None:
        while self.octets_kept > self.octets:
            # Texts go first: a summary takes less room, and is asked for more often.
            if self._texts:
                _, text = self._texts.popitem(last=False)
                self.octets_kept -= len(text) + _EACH
            else:
                _, summary = self._summaries.popitem(last=False)
                self.octets_kept -= _weight(summary)

    # --- Open files

    def take_file(self, live: LiveMailbox, uid: int) -> MessageFile | None:
        """Take an open file out. It is the caller's until `give_file`."""
        kept = self._files.pop((live.serial, uid), None)
        return None if kept is None else kept[0]

    def give_file(self, live: LiveMailbox, uid: int, file: MessageFile) -> None:
        """Put a file back. The cache may keep it open; the caller no longer has it."""
        key = live.serial, uid
        if key in self._files or live.columns.position(uid) < 0 or not live.account.keeps(live):
            live.account.run(file.close)
            return
        self._files[key] = file, live, self._seconds() + KEPT_OPEN
        while len(self._files) > self.files:
            self._close(next(iter(self._files)))
        if self._files and self._timer is None:
            self._timer = self._call_later(KEPT_OPEN, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._seconds()
        while self._files:
            key, (_, _, until) = next(iter(self._files.items()))
            if until > now:
                self._timer = self._call_later(until - now, self._expire)
                return
            self._close(key)

    def stop(self) -> None:
        """Cancel the timer, at the end of the service. Repeating it is harmless."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self, key: _Key) -> None:
        file, live, _ = self._files.pop(key)
        live.account.run(file.close)

    # --- Forgetting

    def forget(self, live: LiveMailbox, uids: Collection[int]) -> None:
        """Drop expunged messages."""
        if self._texts or self._summaries or self._files:
            self._forget({(live.serial, uid) for uid in uids})

    def forget_mailbox(self, live: LiveMailbox) -> None:
        """Drop a mailbox that is no longer kept, or was replaced."""
        serial = live.serial
        self._forget({key for kept in (self._texts, self._summaries, self._files) for key in kept if key[0] == serial})

    def _forget(self, keys: Collection[_Key]) -> None:
        for key in self._texts.keys() & keys:
            self.octets_kept -= len(self._texts.pop(key)) + _EACH
        for key in self._summaries.keys() & keys:
            self.octets_kept -= _weight(self._summaries.pop(key))
        for key in self._files.keys() & keys:
            self._close(key)


def _weight(summary: Summary) -> int:
    return sum(map(len, summary)) + 2 * _EACH
