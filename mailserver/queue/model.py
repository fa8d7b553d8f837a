"""Values of the queue: envelopes, recipients, rows, settings.

All times are whole seconds since 1970.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal

from attrs import frozen

from mailserver.errors import BadSyntax, MailError, StorageFailure

State = Literal["waiting", "held"]
Kind = Literal["out", "here"]
MAX_TEXT: Final = 1024
"""Octets of an address or another text of an envelope, in UTF-8."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class QueueDamaged(StorageFailure):
    """The rows cannot be read: `rebuild` makes them anew from the spool files."""

    text = "the mail queue is not available, try again later"


class QueueTooNew(StorageFailure):
    """The rows were written by a newer release."""

    text = "the mail queue is not available, try again later"


class QueueBusy(MailError):
    """Another process owns the queue, or holds its lock for too long."""

    smtp_reply: ClassVar[tuple[int, str]] = (451, "4.3.0")
    text = "another program is using the mail queue, try again"


class MessageMissing(StorageFailure):
    """The spool file of a message is missing, or is not as long as its row says."""

    text = "a message of the mail queue cannot be read"


class NotInQueue(MailError):
    """No message has that name."""

    text = "there is no such message in the mail queue"


class TokenRefused(MailError):
    """The local copies of this acceptance were given up by a recovery, so that it must not happen."""

    smtp_reply: ClassVar[tuple[int, str]] = (451, "4.3.0")
    text = "the message was not accepted in time, try again"


@frozen
class Envelope:
    """The envelope of a message, apart from its recipients."""

    sender: str
    """The address of MAIL; empty for the null sender."""
    received: int
    eight_bit: bool = False
    """Has the message octets above 127?"""
    utf8: bool = False
    """Does the message need SMTPUTF8 (RFC 6531)?"""
    envid: str = ""
    """ENVID as received, in xtext (RFC 3461 4.4)."""
    ret: str = ""
    """RET: FULL, HDRS or empty (RFC 3461 4.3)."""
    user: str = ""
    """The login whose recipients are counted; empty: none."""
    source: str = ""
    """The client's address."""
    session: str = ""
    """The id of the session in the log."""
    message_id: str = ""
    parent: str = ""
    """The spool name of the message that a report is about."""

    def check(self) -> None:
        """Raises: BadSyntax for a text that is too long, or has control characters."""
        for text in (self.sender, self.envid, self.user, self.source, self.session, self.message_id, self.parent):
            _check_text(text)
        if self.ret not in {"", "FULL", "HDRS"}:
            raise BadSyntax("RET is FULL or HDRS")


@frozen
class Target:
    """One recipient, and where it leads."""

    address: str
    destination: str
    """The key of the hop or domain that takes it; recipients of one destination share its retry time."""
    kind: Kind = "out"
    """`here`: a mailbox of this server that could not take the message yet."""
    sender: str | None = None
    """The sender for this recipient, where it differs from the envelope's (SRS)."""
    orcpt: str = ""
    """ORCPT as received: `type;xtext` (RFC 3461 4.2)."""
    notify: str = ""
    """NOTIFY in canonical form (`dsn_parameters.parse_notify`); empty: not given."""
    backscatter: bool = False
    """Would a report go to somebody who may never have sent the message?"""

    def check(self) -> None:
        """Raises: BadSyntax for a text that is too long, empty or has control characters."""
        for text in (self.address, self.destination):
            if not text:
                raise BadSyntax("a recipient needs an address and a destination")
        for text in (self.address, self.destination, self.sender or "", self.orcpt, self.notify):
            _check_text(text)
        if self.kind not in {"out", "here"}:
            raise BadSyntax("a recipient is out or here")


@frozen
class Message:
    """A row of a message."""

    id: int
    name: str
    """The name of its spool file."""
    start: int
    """The offset of the message in its file."""
    size: int
    expires: int
    envelope: Envelope


@frozen
class Recipient:
    """A row of a recipient."""

    id: int
    message: int
    target: Target
    state: State
    due: int
    tries: int
    notice: int | None
    """The time from which on a delay is reported; None: it was, or nobody wants to know."""
    hop: str
    """The server that gave `reply`."""
    reply: str
    """The last reply, or the reason why there was none; empty before the first try."""


@frozen
class Hop:
    """A destination that cannot be reached."""

    destination: str
    until: int
    """No connection before this time."""
    failures: int
    reply: str


@frozen
class Settings:
    """The times of the queue, in seconds, and its bounds."""

    retry: tuple[int, ...] = (300, 600, 1200, 2400, 3600)
    """Waiting time after the first, second, ... failed try; the last holds for all further ones."""
    expiry: int = 5 * 86400
    bounce_expiry: int = 86400
    """The same for the null sender."""
    delay_notice: int = 4 * 3600
    """Age of a message at which its sender hears of the delay; 0: never."""
    minimum_free: int = 64 << 20
    """Octets of the disk that acceptances leave free."""
    hostname: str = "localhost"
    """The name of this server in reports."""


def _check_text(text: str) -> None:
    if _CONTROLS.search(text):
        raise BadSyntax("control characters in an envelope")
    if len(text.encode("utf-8")) > MAX_TEXT:
        raise BadSyntax("an address or parameter of the envelope is too long")
