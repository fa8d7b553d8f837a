"""The transaction of one message: sender, recipients, data, delivery (RFC 5321 3.3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final

from mailserver.auth.interfaces import Authenticator, LookUpBudget, Resolution
from mailserver.dkim.canonical import MessageDigest
from mailserver.errors import AuthUnavailable, MailError, NoSuchUser
from mailserver.smtp.address import Address
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.postmaster import UNNAMED, Postmaster, find_postmaster
from mailserver.smtp.wire import Reply, reply_to

NO_PARAMETERS: Final[Mapping[str, object]] = MappingProxyType({})


class LookupFailed(MailError):
    """An address cannot be looked up now (RFC 3463 X.3.0)."""

    smtp_reply: ClassVar[tuple[int, str]] = (451, "4.3.0")
    text = "addresses cannot be looked up at the moment, try again later"


class Transaction(ABC):
    """A transaction: from MAIL to the reply after the message, or to RSET."""

    def __init__(self, sender: Address | None, parameters: Mapping[str, object] = NO_PARAMETERS) -> None:
        self.sender = sender
        """None is the null sender."""
        self.parameters = parameters
        """The parameters of MAIL, by keyword, as their rows have parsed them."""
        self.recipient_parameters: dict[Address, Mapping[str, object]] = {}
        """The parameters of RCPT, for accepted recipients that have some."""
        self.recipients = 0
        """Recipients accepted."""
        self.incoming: Incoming | None = None
        """The message, once its data begins."""
        self.digest: MessageDigest | None = None
        """Gets the message while it comes, where it may have to be signed."""

    @property
    def utf8(self) -> bool:
        """Has MAIL announced UTF-8 in addresses or header fields (RFC 6531 3.4)?"""
        return "SMTPUTF8" in self.parameters

    async def add_recipient(self, recipient: Address, parameters: Mapping[str, object] = NO_PARAMETERS) -> Reply:
        """Answer RCPT; a positive answer counts. Raises: MailError."""
        answer = await self.look_up(recipient)
        if answer.code // 100 == 2:
            self.recipients += 1
            if parameters:
                self.recipient_parameters[recipient] = parameters
        return answer

    @abstractmethod
    async def look_up(self, recipient: Address) -> Reply:
        """Look up a recipient and keep it if it is accepted. Raises: MailError."""

    @abstractmethod
    async def deliver(self, incoming: Incoming) -> Sequence[Reply]:
        """Deliver the whole message and return the replies to its end. Raises: MailError, and no recipient has got it."""

    def refuse(self, error: MailError) -> Sequence[Reply]:
        """The replies to its end when no recipient gets it."""
        return [reply_to(error)]

    @abstractmethod
    async def publish(self) -> None:
        """Publish prepared copies, once the replies are written. The store publishes later what fails here."""

    async def close(self) -> None:
        """Release all that the transaction holds. Harmless when repeated."""
        if self.incoming is not None:
            await self.incoming.close()


async def find_recipients(
    authenticator: Authenticator,
    address: Address,
    separator: str,
    postmaster: Postmaster = UNNAMED,
    budget: LookUpBudget | None = None,
) -> Resolution:
    """Where the mail of an address goes. `separator`: of details (RFC 5233), where the domain has none of its own.

    `budget`: the look-ups that may be made.

    Mail to postmaster and abuse always has a recipient (`smtp.postmaster`). Raises: NoSuchUser, AddressLoop, TooManyEnds,
    LookupFailed.
    """
    try:
        try:
            return await authenticator.resolve(address.unquoted, separator, budget)
        except NoSuchUser:
            found = await find_postmaster(authenticator, address, separator, postmaster)
    except AuthUnavailable as error:
        raise LookupFailed from error
    if found is None:
        raise NoSuchUser
    return found
