"""The mailbox that an IMAP session has open."""

from __future__ import annotations

from attrs import frozen

from mailserver.store.live import LiveMailbox
from mailserver.store.view import View


@frozen
class SelectedMailbox:
    """The open mailbox, and the session's view of it."""

    live: LiveMailbox
    view: View
    read_only: bool
