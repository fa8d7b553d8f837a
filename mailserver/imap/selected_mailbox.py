"""The mailbox that an IMAP session has open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from attrs import Factory, define, field, frozen

from mailserver.session.channel import Channel
from mailserver.store.live import LiveMailbox
from mailserver.store.view import View


@frozen
class WantedItems:
    """FETCH items of some new messages."""

    uids: Sequence[int]
    """Rising."""
    items: tuple[Any, ...]
    """Of `fetch.plan.Item`."""


class ResultUpdates(Protocol):
    """Results of searches that are kept up to date for the client (RFC 5267 4.3)."""

    async def report_expunged(self) -> None:
        """Send what expunged messages change, before their EXPUNGE is sent. Raises: ConnectionLost."""

    async def report_changed(self) -> None:
        """Send what new messages and changed flags change. Raises: MailboxChanged, ConnectionLost."""

    def take_wanted(self) -> Sequence[WantedItems]:
        """Return the items of new messages that `report_changed` has left to `SelectedEvents.fetch_new`, once."""


class SearchScope(Protocol):
    """What a search needs of a session or its like. A `Session` with a selected mailbox is one."""

    @property
    def channel(self) -> Channel:
        """The connection that waits for the result."""

    @property
    def view(self) -> View:
        """The messages that are searched."""

    @property
    def searched(self) -> LiveMailbox:
        """Their mailbox."""


@define(eq=False)
class SelectedEvents:
    """The changes of the selected mailbox that the client wants to be sent: all, before its first NOTIFY (RFC 5465 3.1)."""

    messages: bool = True
    """New messages and expunges."""
    flags: bool = True
    uids: bool = False
    """The FETCH responses of flags have UIDs (RFC 5465 5.1)."""
    fetch_new: Callable[[SelectedMailbox, int], Awaitable[None]] | None = None
    """Sends FETCH responses for the messages beyond that UID, once their EXISTS has been sent."""
    own: set[int] = field(factory=set)
    """UIDs of new messages that the client itself has put there, and that it has not been sent."""


@define(eq=False)
class SelectedMailbox:
    """The open mailbox, and the session's view of it."""

    live: LiveMailbox
    view: View
    read_only: bool
    enabled: set[str]
    """The capabilities that are on in the session: the session's own set."""
    owes_highest: bool = False
    """The client has been sent expunges, and not yet the HIGHESTMODSEQ that includes them (RFC 7162 3.2)."""
    result_updates: ResultUpdates | None = None
    events: SelectedEvents = Factory(SelectedEvents)
    """The session's own."""
