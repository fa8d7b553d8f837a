"""The look-ups of the recipients of one transaction: each address once, and not without end.

A client may name an alias of a thousand users in every RCPT. What an address leads to is remembered until the message is
sent, and what all of them take together is bounded: a client sends to the others in another transaction.
"""

from __future__ import annotations

from typing import Final

from mailserver.auth.interfaces import Authenticator, LookUpBudget, Resolution
from mailserver.errors import AddressLoop, MailError, NoSuchUser, TooManyEnds
from mailserver.filing.local_copies import most_copies
from mailserver.smtp.address import Address
from mailserver.smtp.postmaster import UNNAMED, Postmaster
from mailserver.smtp.transaction import find_recipients

_MOST_REMEMBERED: Final = 1000
"""Addresses of one transaction."""


class RecipientLookUps:
    """The recipients of one transaction that were looked up."""

    def __init__(
        self, authenticator: Authenticator, separator: str, postmaster: Postmaster = UNNAMED, max_recipients: int = 0
    ) -> None:
        """`separator`: of details, where a domain has none of its own. `max_recipients`: of the transaction."""
        self._authenticator = authenticator
        self._separator = separator
        self._postmaster = postmaster
        # One address alone takes less than this.
        self._budget = LookUpBudget(3 * most_copies(max_recipients))
        self._known: dict[tuple[str, str], Resolution | MailError] = {}

    async def find(self, recipient: Address) -> Resolution:
        """Where the mail of an address goes. Raises: NoSuchUser, AddressLoop, TooManyEnds, LookupFailed."""
        key = recipient.local, recipient.domain.lower()
        found = self._known.get(key)
        if found is None:
            try:
                found = await find_recipients(
                    self._authenticator, recipient, self._separator, self._postmaster, self._budget
                )
            except (NoSuchUser, AddressLoop, TooManyEnds) as error:
                found = error
            if len(self._known) < _MOST_REMEMBERED:
                self._known[key] = found
        if isinstance(found, MailError):
            # Each raise would add to the traceback.
            raise found.with_traceback(None)
        return found
