"""The values that messages are ordered by, as columns: one list for each value, in the order of the messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sys import getsizeof
from typing import Any, Final

from mailserver.errors import LimitReached
from mailserver.store.batch_size import BatchSize
from mailserver.store.interfaces import Mailbox
from mailserver.store.order.steps import Work
from mailserver.types import UID

_MOST: Final = 4096
_FEW: Final = 64
"""Messages that are read at once."""
MAX_OCTETS: Final = 512 * 1024 * 1024
"""Memory of the values of one request: a hundred thousand messages may each have 64 KiB of references."""
_DATED: Final = 1000
"""The same where files are asked for their dates."""
_NONE: Final[Mapping[str, object]] = {"sent": None, "is_reply": False}
"""The values of a message that is gone or unreadable; "" for texts."""


class Source:
    """The values of a mailbox, read in the account's thread."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.is_complete = True
        """False if a message was gone or unreadable: its values may be other ones the next time."""

    def sort_keys(self, uids: Sequence[UID], names: Sequence[str]) -> Sequence[tuple[Any, ...]]:
        """Do `Mailbox.sort_keys`."""
        rows = self._mailbox.sort_keys(uids, names)
        self.is_complete = self.is_complete and len(rows) == len(uids)
        return rows

    def arrivals(self, uids: Sequence[UID]) -> dict[int, int]:
        """Return the INTERNALDATE of messages by UID."""
        rows = self._mailbox.measure(uids, only_dates=True)
        self.is_complete = self.is_complete and len(rows) == len(uids)
        return {row.uid: row.date for row in rows}


def read_columns(source: Source, uids: Sequence[UID], names: Sequence[str]) -> Work[list[list[Any]]]:
    """Read the values with these names (fields of SortKeys) of messages whose UIDs rise: a column for each name.

    Raises: LimitReached.
    """
    octets = 0
    columns: list[list[Any]] = [[] for _ in names]
    none = tuple(_NONE.get(name, "") for name in names)
    batch_size = BatchSize(_MOST, _FEW)
    for part in batch_size.parts(uids):
        with batch_size:
            rows = source.sort_keys(part, names)
        if len(rows) < len(part) or any(row[0] != uid for row, uid in zip(rows, part, strict=True)):
            known = {row[0]: row for row in rows}
            rows = [known.get(uid) or (uid, *none) for uid in part]
        for column, values in zip(columns, list(zip(*rows, strict=True))[1:], strict=True):
            column.extend(values)
            octets += sum(map(getsizeof, values))
        if octets > MAX_OCTETS:
            raise LimitReached("the headers of these messages are too large: order fewer of them")
        yield
    return columns


def sent_dates(source: Source, uids: Sequence[UID], sent: Sequence[int | None]) -> Work[list[int]]:
    """The sent dates of RFC 5256 2.2: INTERNALDATE where the Date field has none."""
    dates = [0 if date is None else date for date in sent]
    lacking = [at for at, date in enumerate(sent) if date is None]
    yield
    batch_size = BatchSize(_DATED, _FEW)
    for part in batch_size.parts(lacking):
        with batch_size:
            found = source.arrivals([uids[at] for at in part])
        for at in part:
            dates[at] = found.get(uids[at], 0)
        yield
    return dates


def ranks(order: Sequence[int]) -> list[int]:
    """The place of each position in an order of all positions."""
    found = [0] * len(order)
    for rank, at in enumerate(order):
        found[at] = rank
    return found
