"""A user's INBOX as one POP3 session sees it: the listing of the moment of login, and what is marked deleted.

Message numbers and sizes never move during a session (RFC 1939 5): the listing owns copies of the columns.
Nothing is removed before `update`, which is one operation of the store.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator

from mailserver.errors import BadSyntax, MailError
from mailserver.pop3.uidl import UidlFormat
from mailserver.store.interfaces import Mailbox, MessageFile
from mailserver.store.live import LiveAccount, LiveMailbox
from mailserver.types import UID, UNKNOWN_SIZE

PIECE = 64 * 1024
"""Octets of a message read at once."""

AHEAD = 128 * 1024
"""Octets that are read ahead for a client that takes one message after the other, as most do."""

_SIZES_AT_ONCE = 256
"""Messages whose sizes are found out in one turn of the account, so that others get theirs between."""


class Maildrop:
    """The messages 1 to `count` of a session."""

    def __init__(self, live: LiveMailbox, uids: array[int], sizes: array[int]) -> None:
        self._live = live
        self._uids = uids
        self._sizes = sizes
        self._deleted: set[int] = set()
        self._ahead: dict[int, bytes] = {}
        self._last_read = 0

    @classmethod
    async def open(cls, account: LiveAccount) -> Maildrop:
        """The listing as of now. Raises: StoreUnavailable and its like."""
        live = await account.select("INBOX")
        try:
            columns = live.columns
            uids, sizes = array("I", columns.uids), array("I", columns.sizes)
            unknown = [UID(uid) for uid, size in zip(uids, sizes, strict=True) if size == UNKNOWN_SIZE]
            if unknown:
                uids, sizes = await _learn_sizes(live, uids, sizes, unknown)
        except BaseException:
            account.release(live)
            raise
        return cls(live, uids, sizes)

    def close(self) -> None:
        """Give the mailbox back."""
        self._live.account.release(self._live)

    @property
    def total(self) -> tuple[int, int]:
        """Number of messages not marked deleted, and their octets."""
        gone = sum(self._sizes[number - 1] for number in self._deleted)
        return len(self._uids) - len(self._deleted), sum(self._sizes) - gone

    @property
    def deletions(self) -> int:
        """How many messages are marked deleted."""
        return len(self._deleted)

    def numbers(self) -> list[int]:
        """Message numbers not marked deleted, rising."""
        return [number for number in range(1, len(self._uids) + 1) if number not in self._deleted]

    def check(self, number: int) -> None:
        """Raises: BadSyntax if there is no such message, or if it is marked deleted."""
        if not 1 <= number <= len(self._uids):
            raise BadSyntax("no such message")
        if number in self._deleted:
            raise BadSyntax("that message is marked deleted")

    def size(self, number: int) -> int:
        """Octets of a message as sent, without dot-stuffing."""
        return self._sizes[number - 1]

    def unique_id(self, number: int, uidl_format: UidlFormat) -> str:
        """What UIDL says for a message."""
        return uidl_format(self._live.columns.uid_validity, self._uids[number - 1])

    def delete(self, number: int) -> None:
        """Mark a message deleted."""
        self._deleted.add(number)

    def reset(self) -> None:
        """Take all marks away."""
        self._deleted.clear()

    async def update(self) -> int:
        """Remove what is marked deleted, all in one operation; how many. Raises: MailError, and then nothing is lost."""
        uids = [UID(self._uids[number - 1]) for number in sorted(self._deleted)]
        if uids:
            await self._live.change(lambda mailbox: mailbox.expunge(uids, only_deleted=False))
        return len(uids)

    async def read(self, number: int) -> AsyncGenerator[bytes, None]:
        """The message in pieces; opening it and reading the first piece is one turn of the account.

        Raises: MessageExpunged, StoreUnavailable, the former before any piece.
        """
        sequential = number == self._last_read + 1
        self._last_read = number
        whole = self._ahead.pop(number, None)
        if whole is not None:
            yield whole
            return
        self._ahead.clear()
        file, piece, self._ahead = await self._live.run(
            lambda mailbox: self._open_and_read(mailbox, number, ahead=sequential)
        )
        # The file is right where a name or a record told otherwise.
        self._sizes[number - 1] = file.size
        for following, data in self._ahead.items():
            self._sizes[following - 1] = len(data)
        at, size = len(piece), file.size
        try:
            yield piece
            while piece and at < size:
                piece = await self._live.run(lambda _mailbox, at=at: file.read(at, PIECE))  # type: ignore[misc]
                at += len(piece)
                if piece:
                    yield piece
        finally:
            file.close()

    def _open_and_read(
        self, mailbox: Mailbox, number: int, *, ahead: bool
    ) -> tuple[MessageFile, bytes, dict[int, bytes]]:
        """In the account's thread: the message opened, its first piece, and small ones that follow it, whole."""
        file = mailbox.open_message(UID(self._uids[number - 1]))
        try:
            piece = file.read(0, PIECE)
        except BaseException:
            file.close()
            raise
        if len(piece) < file.size:
            return file, piece, {}
        file.close()
        return file, piece, self._read_ahead(mailbox, number + 1) if ahead else {}

    def _read_ahead(self, mailbox: Mailbox, number: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        left = AHEAD
        while number <= len(self._uids) and number not in self._deleted and self._sizes[number - 1] <= left:
            try:
                file = mailbox.open_message(UID(self._uids[number - 1]))
            except MailError:
                break  # told when the client asks for it
            try:
                data = file.read(0, PIECE)
            except MailError:
                break
            finally:
                file.close()
            if len(data) < file.size:
                break
            found[number] = data
            left -= len(data)
            number += 1
        return found


async def _learn_sizes(
    live: LiveMailbox, uids: array[int], sizes: array[int], unknown: list[UID]
) -> tuple[array[int], array[int]]:
    """Read what the columns do not know; messages that are gone meanwhile are left out of the listing."""
    learnt: dict[int, int] = {}
    for start in range(0, len(unknown), _SIZES_AT_ONCE):
        some = unknown[start : start + _SIZES_AT_ONCE]
        for uid, row, _summary in await live.run(lambda mailbox, some=some: mailbox.summaries(some)):  # type: ignore[misc]
            learnt[uid] = row.size
            live.columns.learn(uid, row.size, row.date)
    kept_uids, kept_sizes = array("I"), array("I")
    for uid, size in zip(uids, sizes, strict=True):
        known = learnt.get(uid) if size == UNKNOWN_SIZE else size
        if known is not None:
            kept_uids.append(uid)
            kept_sizes.append(known)
    return kept_uids, kept_sizes
