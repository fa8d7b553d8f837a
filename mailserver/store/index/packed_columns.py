"""The packed_columns table: the columns of a mailbox as octets, so that loading needs no step for each message.

They are packed as of a modseq. Later changes are read from the rows. If these are many, or the history of expunges does
not reach back, everything is read from the rows and packed anew. A size or date may become known without a new modseq:
then the packed columns are removed (`Messages.learn`). Losing them does no harm.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from typing import Any, Final, NamedTuple

import apsw

from mailserver.store.further_flags import narrowed
from mailserver.store.index.messages import Messages
from mailserver.store.index.records import MailboxState
from mailserver.store.rows import cap_size
from mailserver.types import ModSeq

FEW: Final = 256
"""Changes that are applied one by one."""
WORTH: Final = 64
"""A mailbox with fewer messages is read from its rows."""

_TYPES: Final = "IIQIq"
_START: Final = struct.Struct("=QI5s")
_MARK: Final = 0x0102030405060708
"""A machine with another byte order reads another number."""
_WHOLE, _SAME, _RISING = b"wsr"
"""Forms of a packed column: as it is; one value for all; rising by one from the first value."""


class Arrays(NamedTuple):
    """The columns of a mailbox, by rising UID, as `Snapshot` has them, but for flags, which are as the index has them."""

    uids: array[int]
    flags: array[int]
    modseqs: array[int]
    sizes: array[int]
    dates: array[int]


class PackedColumns:
    """Reads see the last commit; writes belong inside `Index.transaction`. `key` is a mailbox's."""

    def __init__(self, connection: apsw.Connection, messages: Messages) -> None:
        self._connection = connection
        self._messages = messages

    def load(self, state: MailboxState) -> tuple[Arrays, bool]:
        """Return the mailbox's columns as of the state or later, and whether they should be packed."""
        found = self._packed(state)
        if found is not None:
            return found
        columns = Arrays(*self._messages.columns(state.key))
        return columns, len(columns.uids) >= WORTH

    def put(self, key: int, modseq: ModSeq, columns: Arrays) -> None:
        """Store the columns as of that modseq, if it is worth it. They may be newer."""
        if len(columns.uids) < WORTH:
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO packed_columns (mailbox, modseq, data) VALUES (?, ?, ?)",
            (key, modseq, pack(columns)),
        )

    def _packed(self, state: MailboxState) -> tuple[Arrays, bool] | None:
        key = state.key
        row: Any = self._connection.execute(
            "SELECT modseq, data FROM packed_columns WHERE mailbox = ? AND modseq BETWEEN ? AND ?",
            (key, state.floor, state.modseq),
        ).fetchone()
        columns = unpack(row[1]) if row is not None else None
        if columns is None:
            return None
        modseq = ModSeq(row[0])
        if modseq == state.modseq:
            return columns, False
        if self._messages.has_changes(key, modseq, FEW):
            return None
        rows, expunged = self._messages.changed_since(key, modseq), self._messages.expunged_since(key, modseq)
        for uid in expunged:
            at = _place(columns, uid)
            if at < len(columns.uids) and columns.uids[at] == uid:
                for column in columns:
                    del column[at]
        for changed in rows:
            at = _place(columns, changed.uid)
            values = changed.uid, narrowed(changed.flags), changed.modseq, cap_size(changed.size), changed.date
            if at < len(columns.uids) and columns.uids[at] == changed.uid:
                for column, value in zip(columns, values, strict=True):
                    column[at] = value
            else:
                for column, value in zip(columns, values, strict=True):
                    column.insert(at, value)
        return columns, False


def _place(columns: Arrays, uid: int) -> int:
    return bisect_left(columns.uids, uid)


def pack(columns: Arrays) -> bytes:
    """Pack the columns: at most 28 octets a message."""
    count = len(columns.uids)
    kinds = bytearray()
    parts: list[bytes] = []
    for column in columns:
        data = column.tobytes()
        one = data[: column.itemsize]
        if not parts and count and column[-1] - column[0] == count - 1:
            kinds.append(_RISING)
            parts.append(one)
        elif count and data == one * count:
            kinds.append(_SAME)
            parts.append(one)
        else:
            kinds.append(_WHOLE)
            parts.append(data)
    return _START.pack(_MARK, count, bytes(kinds)) + b"".join(parts)


def unpack(data: bytes) -> Arrays | None:
    """Unpack the result of `pack`. None for anything else."""
    if len(data) < _START.size:
        return None
    mark, count, kinds = _START.unpack_from(data)
    if mark != _MARK:
        return None
    columns = []
    at = _START.size
    for code, kind in zip(_TYPES, kinds, strict=True):
        column = array(code)
        length = column.itemsize * (count if kind == _WHOLE else 1)
        if len(data) < at + length:
            return None
        column.frombytes(data[at : at + length])
        at += length
        if kind == _SAME:
            column *= count
        elif kind == _RISING:
            column = array(code, range(column[0], column[0] + count))
        elif kind != _WHOLE:
            return None
        columns.append(column)
    return Arrays(*columns)
