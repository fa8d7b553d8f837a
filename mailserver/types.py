"""The small types that every layer shares: numbers that must not be mixed up, and secrets that never print."""

from __future__ import annotations

import os
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from os import PathLike
from typing import Final, NamedTuple, NewType

UID = NewType("UID", int)
"""Unique identifier of a message in its mailbox, 1 to 2**32 - 1 (RFC 3501 2.3.1.1)."""

SeqNum = NewType("SeqNum", int)
"""Message sequence number, the position in one session's view, from 1 (RFC 3501 2.3.1.2)."""

ModSeq = NewType("ModSeq", int)
"""Modification sequence, below 2**63, growing with each change of a mailbox (RFC 7162 3.1)."""

UIDValidity = NewType("UIDValidity", int)
"""Validity value of a mailbox's UIDs, 1 to 2**32 - 1 (RFC 3501 2.3.1.1)."""

MailboxId = NewType("MailboxId", bytes)
"""The 16-byte GUID of a mailbox, as in the header of its dovecot-uidlist."""

UNKNOWN_SIZE: Final = 0xFFFFFFFF
"""In a size column: not yet read from the file."""

UNKNOWN_DATE: Final = -(2**63)
"""In a date column: not yet read from the file."""


class DirectoryId(NamedTuple):
    """What tells a directory from any other that takes its place."""

    device: int
    inode: int

    @classmethod
    def of(cls, path: str | PathLike[str]) -> DirectoryId | None:
        """That of a path now, None if nothing is there. Raises: OSError."""
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(status.st_dev, status.st_ino)


SLASH: Final = "\x1f"
"""A "/" inside a level of a mailbox name in the store, where a "/" stands between levels."""


@lru_cache(maxsize=1024)
def client_of(address: IPv4Address | IPv6Address | None) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address; "local" for a Unix socket."""
    if address is None:
        return "local"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
    return str(address)


class Secret:
    """Bytes that must not be shown: a password, a key. Only `reveal()` gives them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves; never log what this returns."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)
