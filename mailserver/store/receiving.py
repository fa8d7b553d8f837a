"""Messages that are being received, by APPEND or delivery: staged, published, and the place that they got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from mailserver.types import UID, MailboxId, UIDValidity

DATES = range(-(2**31), 15_032_385_536)
"""INTERNALDATEs that file systems can keep as a file's time: 1901-12-13 to 2446-05-10."""


class StagedMessage(Protocol):
    """A message that is being received into a file under tmp/. Nobody sees it before it is appended or delivered."""

    size: int

    def write(self, data: bytes) -> None:
        """Append bytes, exactly as they are to be stored. Raises: NoSpace, StoreUnavailable."""

    def copy(self, descriptor: int, offset: int, count: int) -> None:
        """Append octets of an open file, whose line ends are CRLF, within the kernel where it can.

        Raises: NoSpace, StoreUnavailable.
        """

    def content(self) -> bytes:
        """Return all octets so far. Raises: NoSpace, StoreUnavailable."""

    def finish(self, date: int | None) -> None:
        """Sync the content with the INTERNALDATE that `NewMessage` will have, and close the file: it is complete.

        Optional; publishing does it for the others, which takes its time while the account waits. Repeated, it does nothing.
        Raises: NoSpace, StoreUnavailable.
        """

    def abort(self) -> None:
        """Remove the file. Harmless after use and when repeated."""


@frozen
class NewMessage:
    """A staged message with the flags and date that it will have."""

    staged: StagedMessage
    flags: frozenset[str] = frozenset()
    """System flags and keywords by name; \\Recent is not one of them."""
    date: int | None = None
    """INTERNALDATE in seconds since 1970, within DATES; None is now."""


@frozen
class Delivery:
    """Staged messages and their mailbox: all or none."""

    name: str
    messages: Sequence[NewMessage]
    beyond_quota: bool = False
    """It is never refused for a quota."""


class Prepared(Protocol):
    """Messages that are synced in tmp/ with an intent record: publishing them cannot fail for want of space.

    If the process dies first, or `publish` fails, the next holder of the lock publishes them.

    Messages with a token wait for a decision: `publish` is called only once the token is durably decided. If the process
    dies first, the next holder asks the `decided` that the store was opened with. "Yes" publishes them, "no" removes them
    and gives their quota back. Without such a function, or while it raises, they stay as they are.
    """

    def publish(self) -> Appended:
        """Publish the messages. Raises: InUse, StoreUnavailable."""

    def abort(self) -> None:
        """Remove intent and files. Harmless when repeated and after publish."""


@frozen
class Appended:
    """The place of appended messages (RFC 4315 APPENDUID)."""

    mailbox: MailboxId
    uid_validity: UIDValidity
    uids: Sequence[UID]
    claimed: bool = False
    """They have been claimed, as by `Mailbox.claim_recent`."""
