"""What sessions, the queue's process and commands ask of the queue. Each call blocks: it is made in a thread.

A message is accepted in this order: its file is written under its final name (`write`); local copies are prepared with a
token; `accept` commits rows and token in one transaction, which is the decision; the copies are published. A file without
a row does not exist: it is swept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from attrs import frozen

from mailserver.queue.model import Envelope, Hop, Message, Recipient, Target
from mailserver.queue.outcome import Outcome


@frozen
class Content:
    """A message: octets, and a range of an open file behind them."""

    start: bytes
    rest: tuple[int, int, int] | None = None
    """Descriptor, offset and number of octets. The caller keeps the descriptor open until `write` returns."""


@frozen
class Spooled:
    """A message in its durable file, which has no rows yet."""

    name: str
    start: int
    """The offset of the message in its file."""
    size: int
    envelope: Envelope
    targets: tuple[Target, ...]


@frozen
class Try:
    """A message and those of its recipients that are due at one destination."""

    message: Message
    recipients: tuple[Recipient, ...]


class Decisions(Protocol):
    """Tokens: the word that local copies wait for. An unknown token, once asked for, can never be decided."""

    def decided(self, token: str) -> bool:
        """Tell whether the token was committed, and refuse it from now on if it was not.

        One that is older than the rows counts as committed: those that knew it are gone. Raises: QueueBusy, QueueDamaged, StorageFailure; the caller then leaves the copies as they are.
        """

    def forget(self, tokens: Sequence[str]) -> None:
        """Remove the rows of tokens whose copies are settled. Lost by a crash, it is only work for a sweep."""


class Acceptances(Decisions, Protocol):
    """The side of sessions. Any number of threads and processes call at once; those that meet share the syncs."""

    def check_space(self, size: int) -> None:
        """Raises: NoSpace (452 4.3.1) if a message of that size would leave less than `minimum_free`."""

    def write(self, envelope: Envelope, targets: Sequence[Target], content: Content) -> Spooled:
        """Write and sync the file of a message. Raises: NoSpace, StorageFailure, BadSyntax."""

    def discard(self, spooled: Spooled) -> None:
        """Remove a file that is not accepted. Harmless when repeated; never raises."""

    def accept(self, spooled: Sequence[Spooled], token: str = "", *, sent: Sequence[tuple[str, int]] = ()) -> None:
        """Commit: all messages, the token and the counts, or none. Durable on return.

        No messages and a token: the copies here are all there is. `sent`: users and numbers of their recipients.
        Raises: NoSpace, QueueBusy, QueueDamaged, TokenRefused, StorageFailure; nothing was accepted then.
        """

    def sent(self, user: str, since: int) -> int:
        """Return the recipients that a user has sent to since that time (whole hours)."""


class Work(Protocol):
    """The side of the queue's process, which holds `owner.lock`: each recipient has one attempt at most at a time."""

    def changed(self) -> bool:
        """Tell whether another connection has committed since the last call. Costs microseconds."""

    def due(self, now: int, limit: int, besides: Collection[str] = ()) -> Sequence[str]:
        """Return destinations with recipients that are due, the longest waiting first, without dead hops."""

    def next_due(self, besides: Collection[str] = ()) -> int | None:
        """Return the time when the next recipient is due; None: none waits."""

    def take(self, destination: str, now: int, limit: int, besides: Collection[int] = ()) -> Sequence[Try]:
        """Return at most `limit` messages with their due recipients, the longest waiting first.

        `besides`: ids of recipients that are being tried. Recipients of one message may come in several calls.
        """

    def open(self, message: Message) -> int:
        """Open the file of a message for reading; it starts at `message.start`. Raises: MessageMissing."""

    def results(self, results: Sequence[tuple[Recipient, Outcome]], now: int, *, token: str = "") -> Sequence[Spooled]:
        """Commit outcomes: rows, the schedule, the reports they cause, and a token of copies here, or nothing.

        Survives kill -9 on return, and a power cut within a second. Returns the reports that were queued.
        Raises: NoSpace, QueueBusy, QueueDamaged, StorageFailure.
        """

    def overdue(self, now: int, besides: Collection[int] = ()) -> Sequence[Spooled]:
        """Report delays and expiry of recipients that are not tried, as their destinations cannot be reached.

        To be called each minute. `besides`: ids of recipients that are being tried. Returns the reports that were queued.
        Raises: as `results`.
        """

    def sync(self) -> int:
        """Make results survive a power cut, and then remove the files of finished messages; return their number.

        To be called within a second behind `results`, and before the process ends. Raises: NoSpace, QueueBusy,
        QueueDamaged, StorageFailure; the next call tries again.
        """

    def sweep(self, now: int) -> Sequence[str]:
        """Remove files that nobody accepted; return their names. To be called each hour. Raises: as `sync`."""

    def hops(self) -> Sequence[Hop]:
        """Return the destinations that cannot be reached now."""
