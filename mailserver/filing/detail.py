"""The filer of users without a filter: the mailbox that the detail of the address names, else INBOX."""

from __future__ import annotations

from mailserver.errors import BadMailboxName, NoSuchMailbox
from mailserver.filing.interfaces import FilingRecipient, Plan, Source
from mailserver.store.interfaces import Account


class DetailFiler:
    """Implements `Filer`."""

    def plan(self, message: Source, recipient: FilingRecipient) -> Plan:  # noqa: ARG002 - the address alone decides
        """Plan one file without flags."""
        return Plan(((choose_mailbox(recipient.account, recipient.detail), frozenset()),))


def choose_mailbox(account: Account, detail: str) -> str:
    """Return the mailbox that the detail of an address names, or INBOX if there is none (RFC 5233 4)."""
    if not detail or (detail.isascii() and detail.upper() == "INBOX"):
        return "INBOX"
    try:
        account.mailbox(detail)
    except (NoSuchMailbox, BadMailboxName):
        return "INBOX"
    return detail
