"""What decides where a message for a user here goes, and what it decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from attrs import field, frozen

from mailserver.errors import MailError
from mailserver.store.interfaces import Account


class MessageRejected(MailError):
    """The recipient refuses the message (RFC 5429 2.1)."""

    smtp_reply: ClassVar[tuple[int, str]] = (550, "5.7.1")
    text = "the recipient refuses the message"


class Source(Protocol):
    """A message as it will be stored, with its trace fields."""

    @property
    def size(self) -> int:
        """Octets."""

    def read(self, offset: int, count: int) -> bytes:
        """Read some octets, fewer at the end. Raises: StoreUnavailable."""


@frozen
class FilingRecipient:
    """One user here who gets a message."""

    account: Account
    address: str
    """The recipient of the envelope, before aliases."""
    detail: str = ""
    """The detail of the address (RFC 5233), which may be empty."""
    sender: str = ""
    """The sender of the envelope; empty for the null sender."""


@frozen
class Plan:
    """What becomes of a message for one user: all of it, or nothing and the sender is told. Raises: ValueError."""

    files: tuple[tuple[str, frozenset[str]], ...] = ()
    """Mailboxes with the flags of the message there."""
    redirects: tuple[str, ...] = ()
    """Addresses elsewhere. Nothing sends to them yet: such a plan is refused for now."""
    reject: str = ""
    """The reason of a refusal, for the sender."""
    discard: bool = field(default=False)
    """Nothing is kept, on purpose."""

    @discard.validator
    def _check_whole(self, _attribute: object, discard: bool) -> None:
        if not (discard or self.files or self.redirects or self.reject):
            raise ValueError("a plan must not lose the message")


class Filer(Protocol):
    """Plans what becomes of a message. It must not change anything: the plan may not be carried out."""

    def plan(self, message: Source, recipient: FilingRecipient) -> Plan:
        """Plan, in the account's thread. It may block, for the disk of the account alone. Raises: MailError."""


class CopyDecisions(Protocol):
    """The durable decisions that copies of one message wait for, by tokens. Each call blocks, in any thread."""

    def get_ready(self) -> None:
        """Make sure that a decision can be asked for after a crash, before any copy has a token. Cheap when repeated.

        Raises: NoSpace, QueueBusy, QueueDamaged, StorageFailure.
        """

    def decide(self, token: str) -> None:
        """Decide, durably, that the copies with a token are published. Raises: as get_ready, and TokenRefused."""

    def forget(self, tokens: Sequence[str]) -> None:
        """Remove decisions that no copy waits for any more. Raises: as get_ready."""
