"""The maildrop of a POP3 session: the listing of the user's INBOX at login, and the messages marked deleted.

Message numbers and sizes never move during a session (RFC 1939 5): the listing owns copies of the columns.
Nothing is removed before `update`, which is one operation of the store.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from mailserver.cancellation import shielded
from mailserver.errors import BadSyntax, InUse, NoSpace, ReadOnly, StoreUnavailable
from mailserver.message.surrogate import apply_edits, is_plain, message_edits
from mailserver.message.surrogate_file import SurrogateFile, edits_of_file, edits_of_header
from mailserver.pop3.uidl import UidlFormat
from mailserver.store.flags import SEEN, FlagChange
from mailserver.store.interfaces import Mailbox, MessageFile, Pop3Record
from mailserver.store.live import LiveAccount, LiveMailbox
from mailserver.store.rows import Row
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, UNKNOWN_SIZE

PIECE = 64 * 1024
"""Octets of a message read at once."""

AHEAD = 128 * 1024
"""Octets that are prefetched for a client that retrieves one message after the other, as most do."""

_NO_RECORD = Pop3Record()

_SIZES_AT_ONCE = 256
"""Messages whose sizes are read in one turn of the account at most, so that others get their turn."""

_ALL = 1 << 62
"""More octets than there are: time alone ends a turn."""

_SKIPPED = 1000
"""Deleted messages between two that a client retrieves one after the other."""


class Maildrop:
    """The messages 1 to `count` of a session."""

    def __init__(
        self,
        live: LiveMailbox,
        uids: array[int],
        sizes: array[int],
        records: Mapping[UID, Pop3Record],
        *,
        utf8: bool = False,
    ) -> None:
        """`utf8`: the client takes UTF-8 in headers; others get surrogates (`message.surrogate`)."""
        self._live = live
        self._utf8 = utf8
        self._surrogate_sizes: dict[int, int] = {}
        """Octets of the surrogates that have been made, by message number."""
        self._uids = uids
        self._sizes = sizes
        self._records = records
        self._saved_ids = frozenset(record.unique_id for record in records.values() if record.unique_id is not None)
        self._octets: int | None = None
        """The sum of all sizes, once it has been asked for: of a million messages it takes milliseconds."""
        self._deleted: set[int] = set()
        self._deleted_octets = 0
        self._retrieved: set[int] = set()
        self._prefetched: dict[int, bytes] = {}
        self._last_read = 0

    @classmethod
    async def open(cls, account: LiveAccount, *, names: bool = False, utf8: bool = False) -> Maildrop:
        """The listing as of now, with `names` for a format of unique-ids that needs them. Raises: StoreUnavailable and its like."""
        live = await account.select("INBOX")
        try:
            columns = live.columns
            uids, sizes = array("I", columns.uids), array("I", columns.sizes)
            unknown = [UID(uid) for uid, size in zip(uids, sizes, strict=True) if size == UNKNOWN_SIZE]
            if unknown:
                uids, sizes = await _read_sizes(live, uids, sizes, unknown)
            uids, sizes, records = await live.run(
                lambda mailbox: _sort_listing(uids, sizes, mailbox.pop3_records(names=names))
            )
        except BaseException:
            account.release(live)
            raise
        return cls(live, uids, sizes, records, utf8=utf8)

    def close(self) -> None:
        """Release the mailbox."""
        self._live.account.release(self._live)

    @property
    def total(self) -> tuple[int, int]:
        """Number of messages not marked deleted, and their octets."""
        if self._octets is None:
            made = self._surrogate_sizes.items()
            self._octets = sum(self._sizes) + sum([size - self._sizes[number - 1] for number, size in made])
        return len(self._uids) - len(self._deleted), self._octets - self._deleted_octets

    def slices(self, most: int) -> Iterator[list[int]]:
        """Message numbers not marked deleted, rising, of `most` messages at a time: there may be a million."""
        for start in range(1, len(self._uids) + 1, most):
            numbers = range(start, min(start + most, len(self._uids) + 1))
            yield [number for number in numbers if number not in self._deleted]

    def check(self, number: int) -> None:
        """Raises: BadSyntax if there is no such message, or if it is marked deleted."""
        if not 1 <= number <= len(self._uids):
            raise BadSyntax("no such message")
        if number in self._deleted:
            raise BadSyntax("that message is marked deleted")

    def size(self, number: int) -> int:
        """Octets of a message as sent, without dot-stuffing; of the message itself, as long as no surrogate of it was made."""
        return self._surrogate_sizes.get(number) or self._sizes[number - 1]

    def unique_id(self, number: int, uidl_format: UidlFormat) -> str:
        """The unique-id of a message: the one that another server saved, else one in the given format.

        One in the format never equals a saved one: a client would take a new message for the old.
        """
        uid = UID(self._uids[number - 1])
        record = self._records.get(uid, _NO_RECORD)
        if record.unique_id is not None:
            return record.unique_id
        made = unique_id = uidl_format(self._live.columns.uid_validity, uid, record)
        copy = 1
        while unique_id in self._saved_ids:
            copy += 1
            unique_id = f"{made}-{copy}"
        return unique_id

    def delete(self, number: int) -> None:
        """Mark a message deleted."""
        self._deleted.add(number)
        self._deleted_octets += self.size(number)

    def retrieved(self, number: int) -> None:
        """Note that the client has got a message whole."""
        self._retrieved.add(number)

    def reset(self) -> None:
        """Remove all marks."""
        self._deleted.clear()
        self._deleted_octets = 0
        self._retrieved.clear()

    async def update(self) -> int:
        """Remove the messages marked deleted and set \\Seen on the retrieved ones, in one operation; return the number removed.

        Raises: MailError if they could not be removed, and then nothing is lost. A failure to write flags is ignored.
        """
        deleted = sorted(UID(self._uids[number - 1]) for number in self._deleted)
        read = self._unseen(self._retrieved - self._deleted)

        def carry_out(mailbox: Mailbox) -> None:
            # Many clients disconnect as soon as they have sent QUIT.
            with shielded():
                if deleted:
                    mailbox.expunge(deleted, only_deleted=False)
                if read and not mailbox.read_only:
                    with suppress(NoSpace, InUse, ReadOnly, StoreUnavailable):
                        mailbox.store_flags(read, FlagChange.ADD, ("\\Seen",))

        if deleted or read:
            await self._live.change(carry_out, len(deleted) + len(read))
        return len(deleted)

    def _unseen(self, numbers: set[int]) -> list[UID]:
        """The UIDs of the messages that still exist and are not flagged \\Seen, rising."""
        columns = self._live.columns
        uids = sorted(UID(self._uids[number - 1]) for number in numbers)
        return [uid for uid in uids if (at := columns.position(uid)) >= 0 and not columns.flags[at] & SEEN]

    def take_in_memory(self, number: int) -> bytes | None:
        """Take a message that is prefetched, or in the kernel's memory; it has the size that `size` returns.

        None: it is not there, or may need a surrogate.
        """
        whole = self._prefetched.pop(number, None)
        if whole is None:
            whole = self._live.mailbox.read_cached(
                UID(self._uids[number - 1]), self._sizes[number - 1], only_header=False
            )
        if whole is not None and not self._utf8 and not whole.isascii() and not is_plain(whole):
            self._prefetched[number] = whole
            return None
        if whole is not None:
            self._last_read = number
        return whole

    async def read(self, number: int, *, only_header: bool = False) -> AsyncGenerator[bytes, None]:
        """The message in pieces; opening it and reading the first piece is one turn of the account.

        `only_header`: nothing behind the header is used.

        Raises: MessageExpunged, StoreUnavailable, the former before any piece.
        """
        skipped = range(self._last_read + 1, number)
        sequential = number > self._last_read and len(skipped) <= _SKIPPED and self._deleted.issuperset(skipped)
        self._last_read = number
        whole = self._prefetched.pop(number, None)
        if whole is not None:
            if not self._utf8 and not whole.isascii():
                original = whole
                whole = await self._live.run(lambda _mailbox: apply_edits(original, message_edits(original)))
                self._learn_surrogate(number, len(whole), len(original))
            yield whole
            return
        self._prefetched.clear()
        file, piece, self._prefetched, original_size = await self._live.run(
            lambda mailbox: self._open_and_read(mailbox, number, ahead=sequential, only_header=only_header)
        )
        # The file is right where its name or a record has another size.
        for following, data in self._prefetched.items():
            self._learn_size(following, len(data))
        if file is None:
            self._learn_size(number, original_size)
            self._learn_surrogate(number, len(piece), original_size)
            yield piece
            return
        at = len(piece)
        size = file.size
        self._learn_size(number, original_size)
        if not only_header:
            self._learn_surrogate(number, size, original_size)
        try:
            yield piece
            while at < size:
                piece = file.read_now(at, PIECE) or b""
                if not piece:
                    piece = await self._live.run(lambda _mailbox, at=at: file.read(at, PIECE))  # type: ignore[misc]
                if not piece:
                    raise StoreUnavailable("the message is shorter than it was")
                at += len(piece)
                yield piece
        finally:
            file.close()

    def _learn_surrogate(self, number: int, size: int, original: int) -> None:
        if size != original and self._surrogate_sizes.get(number) != size:
            self._surrogate_sizes[number] = size
            self._octets = None

    def _learn_size(self, number: int, size: int) -> None:
        if self._sizes[number - 1] != size:
            self._sizes[number - 1] = size
            self._octets = None

    def _open_and_read(
        self, mailbox: Mailbox, number: int, *, ahead: bool, only_header: bool
    ) -> tuple[MessageFile | None, bytes, dict[int, bytes], int]:
        """Read a small message whole, with the small ones that follow, or a large one's first piece, in the account's thread.

        The message is served as a surrogate if the client needs that; the following ones, and the number, its octets, are not.
        """
        found = mailbox.read_whole(self._following(number) if ahead else [UID(self._uids[number - 1])], AHEAD)
        if found:
            whole = {number + place: data for place, (_uid, data) in enumerate(found)}
            text = whole.pop(number)
            return None, text if self._utf8 else apply_edits(text, message_edits(text)), whole, len(text)
        file: MessageFile = mailbox.open_message(UID(self._uids[number - 1]))
        try:
            original = file.size
            edits = [] if self._utf8 else edits_of_header(file) if only_header else edits_of_file(file)
            if edits:
                file = SurrogateFile(file, edits)
            return file, file.read(0, PIECE), {}, original
        except BaseException:
            file.close()
            raise

    def _following(self, number: int) -> list[UID]:
        """The UIDs of the message and of the following ones that are prefetched with it."""
        uids = [UID(self._uids[number - 1])]
        left = AHEAD - self._sizes[number - 1]
        while number < len(self._uids) and number + 1 not in self._deleted and left > 0:
            if self._uids[number] < uids[-1]:
                break
            uids.append(UID(self._uids[number]))
            left -= self._sizes[number]
            number += 1
        return uids


def _sort_listing(
    uids: array[int], sizes: array[int], records: Mapping[UID, Pop3Record]
) -> tuple[array[int], array[int], Mapping[UID, Pop3Record]]:
    """Sort the listing as Dovecot does, in the account's thread: messages with an order first, rising; those of one order by UID."""
    if all(record.order is None for record in records.values()):
        return uids, sizes, records

    def place(pair: tuple[int, int]) -> tuple[bool, int]:
        record = records.get(UID(pair[0]))
        return (True, 0) if record is None or record.order is None else (False, record.order)

    pairs = sorted(zip(uids, sizes, strict=True), key=place)
    return array("I", [uid for uid, _size in pairs]), array("I", [size for _uid, size in pairs]), records


async def _read_sizes(
    live: LiveMailbox, uids: array[int], sizes: array[int], unknown: list[UID]
) -> tuple[array[int], array[int]]:
    """Read the sizes that the columns lack; messages that are gone meanwhile are left out of the listing."""
    learnt: dict[int, int] = {}
    at = 0
    while at < len(unknown):
        some = unknown[at : at + _SIZES_AT_ONCE]
        rows, is_whole = await live.run(partial(_measure, some))
        for row in rows:
            learnt[row.uid] = row.size
            live.columns.learn(row.uid, row.size, row.date)
        at = at + len(some) if is_whole else bisect_right(unknown, rows[-1].uid)
    kept_uids, kept_sizes = array("I"), array("I")
    for uid, size in zip(uids, sizes, strict=True):
        known = learnt.get(uid) if size == UNKNOWN_SIZE else size
        if known is not None:
            kept_uids.append(uid)
            kept_sizes.append(known)
    return kept_uids, kept_sizes


def _measure(uids: Sequence[UID], mailbox: Mailbox) -> tuple[Sequence[Row], bool]:
    """Measure as many messages as fit into a turn, in the account's thread, and return whether these are all."""
    time_slice = TimeSlice(_ALL)
    rows = mailbox.measure(uids, time_slice=time_slice)
    return rows, not (time_slice.full and rows)
