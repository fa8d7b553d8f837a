"""The objects that the store's interfaces hand out: lists, open messages, locks, searches. `store.interfaces` exports them, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailserver.store.values import MailboxInfo
from mailserver.types import UID


class MailboxList(Protocol):
    """The mailboxes of an account at one moment. It can be weakly referenced."""

    @property
    def infos(self) -> Sequence[MailboxInfo]:
        """Every name, as `Account.mailboxes` returns them."""

    @property
    def subscribed(self) -> frozenset[str]:
        """Subscribed names, also those that do not exist."""

    def is_current(self) -> bool:
        """Tell whether it certainly still holds. A few stats at most, on any thread; False if that is uncertain."""


class MessageFile(Protocol):
    """An open message in the form in which it is sent: line ends are CRLF."""

    size: int
    """Octets that `read` can give; this is RFC822.SIZE."""

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Read these octets; fewer at the end."""

    def read_now(self, offset: int, count: int) -> bytes | None:
        """Read at least one octet without waiting, on any thread. None: only `read` can tell."""

    def close(self) -> None:
        """Close the file."""


class MaildropLock(Protocol):
    """The lock on an account's maildrop (RFC 1939 4)."""

    def release(self) -> None:
        """Release it. Never blocks, on the reactor's thread either. Repeating it is harmless."""


class SearchRun(Protocol):
    """A search in progress. Each step is a bounded piece of work, so that other work of the account can run in between."""

    looked_at: int
    """Messages that have been read for it."""
    work: int
    """Octets of text times needles, beyond the first few needles, that have been compared."""
    pause: float
    """Seconds to wait before the next step."""
    expunged: bool
    """At the end: some candidates were left out because they no longer exist."""

    def step(self) -> Sequence[UID] | None:
        """Continue. Return the matching UIDs (rising) at the end, else None. Raises: Cancelled."""

    def close(self) -> None:
        """Release what is held between two steps. Never blocks. Repeating it is harmless."""
