"""Small types that all layers share: numbers of different meaning, and secrets that are never printed."""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import blake2b
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


@lru_cache(maxsize=1024)
def account_id(user: str) -> MailboxId:
    """The id that stands for a user's whole account among those of mailboxes, in pokes between workers."""
    return MailboxId(blake2b(user.encode("utf-8", "surrogateescape"), digest_size=16, person=b"account").digest())


UNKNOWN_SIZE: Final = 0xFFFFFFFF
"""In a size column: not yet read from the file."""

UNKNOWN_DATE: Final = -(2**63)
"""In a date column: not yet read from the file."""


class DirectoryId(NamedTuple):
    """The identity of a directory: another one at the same path has another."""

    device: int
    inode: int

    @classmethod
    def of(cls, path: str | PathLike[str]) -> DirectoryId | None:
        """The identity of the directory at a path; None if there is none. Raises: OSError."""
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(status.st_dev, status.st_ino)


SLASH: Final = "\x1f"
"""Represents a "/" inside a level of a mailbox name, as "/" separates the levels in the store."""


def embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address of the client behind an IPv6 address that is made of it; None for all others.

    These are IPv4-mapped addresses (RFC 4291 2.5.5.2), those of translators (RFC 6052, RFC 8215), 6to4 (RFC 3056), and
    Teredo (RFC 4380). Of the last three, one network is that of many clients, or of all of them.
    """
    number = int(address)
    if number >> 32 in _TRANSLATED or number >> 80 == _LOCALLY_TRANSLATED:
        return IPv4Address(number & 0xFFFFFFFF)
    if number >> 112 == 0x2002:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    if number >> 96 == 0x20010000:
        return IPv4Address(~number & 0xFFFFFFFF)
    return None


_TRANSLATED: Final = (0xFFFF, 0x0064FF9B << 64)
"""::ffff:0:0/96 and 64:ff9b::/96, without their lower 32 bits."""
_LOCALLY_TRANSLATED: Final = 0x0064FF9B0001
"""64:ff9b:1::/48, whose translators usually have a /96 of it."""


@lru_cache(maxsize=1024)
def client_of(address: IPv4Address | IPv6Address | None) -> str:
    """The key by which clients are counted: an IPv4 address, or the /64 of IPv6; "local" for a Unix socket.

    An IPv6 address that stands for an IPv4 client counts as that one (`embedded_ipv4`), a link-local one by itself.
    """
    if address is None:
        return "local"
    if isinstance(address, IPv6Address):
        if (embedded := embedded_ipv4(address)) is not None:
            return str(embedded)
        if address.is_link_local:
            return str(IPv6Address(int(address)))
        return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
    return str(address)


UNLIMITED: Final = 2**63 - 1
"""In a `Quota`: no limit, whatever holds for other accounts."""


class Quota(NamedTuple):
    """Limits of the mail of one account (RFC 9208 5). None where nothing is said, which is no limit either."""

    storage: int | None = None
    """Octets of the messages as sent."""
    messages: int | None = None
    mailboxes: int | None = None

    def or_else(self, other: Quota) -> Quota:
        """Return these limits, and those of the other where nothing is said here."""
        return Quota(*(theirs if mine is None else mine for mine, theirs in zip(self, other, strict=True)))

    @property
    def limits_messages(self) -> bool:
        """True if messages or their octets are limited."""
        return self.storage not in {None, UNLIMITED} or self.messages not in {None, UNLIMITED}


class Usage(NamedTuple):
    """The content of an account, as a `Quota` limits it."""

    storage: int
    """Octets of the messages as sent; estimated for messages of other programs that have not been read."""
    messages: int
    mailboxes: int


class Secret:
    """Secret bytes, such as a password or key. Only `reveal()` returns them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes. Never log them."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)
