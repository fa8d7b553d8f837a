"""Expected failures, and the answer of each protocol to them.

A `MailError` is a sentence for the client with three constants: the IMAP response code (RFC 3501 7.1, RFC 5530), the
SMTP/LMTP reply and enhanced status (RFC 5321 4.2, RFC 3463), and the POP3 response code (RFC 2449, RFC 3206). Any other
exception is a bug: it is logged with its traceback, and the client gets SERVERBUG.
"""

from __future__ import annotations

from typing import ClassVar


class ConnectionLost(Exception):
    """The client has disconnected or was disconnected: nothing can be written any more."""


class MailError(Exception):
    """An expected failure. The argument is one ASCII sentence for the client, without CR, LF or secrets."""

    imap_status: ClassVar[str] = "NO"
    imap_code: ClassVar[str | None] = None
    smtp_reply: ClassVar[tuple[int, str]] = (451, "4.3.0")
    pop3_code: ClassVar[str | None] = None
    text: ClassVar[str] = "the request cannot be carried out"

    ref: str = ""
    """Id of a refused login, which ends the sentence for the client; empty: none."""

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text or self.text)

    @property
    def sentence(self) -> str:
        """The sentence for the client."""
        return f"{self.args[0]} (ref {self.ref})" if self.ref else str(self.args[0])

    @property
    def reason(self) -> str:
        """The reason for the log."""
        return str(self.args[0])


class BadSyntax(MailError):
    """The command does not follow its grammar."""

    imap_status = "BAD"
    smtp_reply = (501, "5.5.4")
    text = "syntax error"


class UIDRequired(BadSyntax):
    """Message numbers, in a session that has only UIDs (RFC 9586)."""

    imap_code = "UIDREQUIRED"
    text = "message numbers are off: use UIDs"


class UnknownCommand(BadSyntax):
    """The command does not exist."""

    smtp_reply = (500, "5.5.1")
    text = "unknown command"


class WrongState(BadSyntax):
    """The command exists and is not allowed now."""

    smtp_reply = (503, "5.5.1")
    text = "not allowed in this state"


class TooBig(MailError):
    """A message or literal over the size limit (RFC 7889, RFC 1870)."""

    imap_code = "TOOBIG"
    smtp_reply = (552, "5.3.4")
    text = "larger than the limit"


class UnknownEncoding(MailError):
    """A transfer encoding that is not known, or binary content that cannot be stored (RFC 3516 4.3, 4.4)."""

    imap_code = "UNKNOWN-CTE"
    text = "the transfer encoding is not known"


class LimitReached(MailError):
    """A limit of this server is reached (RFC 5530 LIMIT)."""

    imap_code = "LIMIT"
    smtp_reply = (452, "4.5.3")
    pop3_code = "SYS/TEMP"
    text = "a limit of this server is reached"


class MailboxFull(LimitReached):
    """The mailbox would have more messages than the limit (RFC 5530 OVERQUOTA, RFC 3463 X.2.2)."""

    imap_code = "OVERQUOTA"
    smtp_reply = (452, "4.2.2")
    text = "the mailbox is full"


class TooManyAnnotations(LimitReached):
    """A mailbox or account would have too many annotations (RFC 5464 4.3)."""

    imap_code = "METADATA TOOMANY"
    text = "too many annotations"


class OverQuota(LimitReached):
    """The account would have more mail than its quota (RFC 9208 4.3.1 OVERQUOTA, RFC 3463 X.2.2)."""

    imap_code = "OVERQUOTA"
    smtp_reply = (452, "4.2.2")
    text = "the quota of this account is used up"


class OverQuotaForGood(OverQuota):
    """The same where the sender must not try again (RFC 5321 4.2.3)."""

    smtp_reply = (552, "5.2.2")


class PrivacyRequired(MailError):
    """A password before TLS (RFC 5530 PRIVACYREQUIRED, RFC 4954 530/538)."""

    imap_code = "PRIVACYREQUIRED"
    smtp_reply = (530, "5.7.0")
    text = (
        "this connection is not encrypted, so no password is accepted: set the connection security of your mail program "
        "to SSL/TLS or STARTTLS"
    )


class AuthFailed(MailError):
    """Unknown user or wrong password, not distinguished (RFC 5530, RFC 4954, RFC 3206)."""

    imap_code = "AUTHENTICATIONFAILED"
    smtp_reply = (535, "5.7.8")
    pop3_code = "AUTH"
    text = "wrong user name or password"

    def __init__(self, reason: str = "") -> None:
        """`reason`: for the log alone. Clients always get the same sentence."""
        super().__init__()
        self._reason = reason

    @property
    def reason(self) -> str:
        """See MailError."""
        return self._reason or super().reason


class AuthorizationFailed(MailError):
    """The password is right, but the user may not act as the requested identity (RFC 4616)."""

    imap_code = "AUTHORIZATIONFAILED"
    smtp_reply = (535, "5.7.8")
    pop3_code = "AUTH"
    text = "this user may not act for that one"


class AuthUnavailable(MailError):
    """A back end cannot answer now; the credentials are neither right nor wrong."""

    imap_code = "UNAVAILABLE"
    smtp_reply = (454, "4.7.0")
    pop3_code = "SYS/TEMP"
    text = "logging in is not possible at the moment, try again later"


class AccountChanged(AuthUnavailable):
    """The account was changed after a login was decided, and before its session began."""

    text = "the account was changed in the meantime, try again"

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    @property
    def reason(self) -> str:
        """See MailError."""
        return self._reason


class TooManyLogins(AuthUnavailable):
    """Too many logins at once: this attempt was not checked. The client gets the sentence of AuthUnavailable."""

    @property
    def reason(self) -> str:
        """See MailError."""
        return "too many attempts to log in: this one was not checked"


class NoSuchMailbox(MailError):
    """No mailbox has that name."""

    imap_code = "NONEXISTENT"
    smtp_reply = (550, "5.1.1")
    text = "no such mailbox"


class MailboxExists(MailError):
    """A mailbox has that name already."""

    imap_code = "ALREADYEXISTS"
    text = "the mailbox exists already"


class MailboxHasChildren(MailError):
    """The mailbox has children and cannot be selected (RFC 5530 HASCHILDREN)."""

    imap_code = "HASCHILDREN"
    text = "the mailbox has children and cannot be selected"


class BadMailboxName(MailError):
    """An invalid mailbox name."""

    imap_code = "CANNOT"
    smtp_reply = (553, "5.1.3")
    text = "not a possible mailbox name"


class Cannot(MailError):
    """The request can never succeed on this server (RFC 5530 CANNOT)."""

    imap_code = "CANNOT"
    text = "this is not possible here"


class ReadOnly(MailError):
    """A change of a mailbox that was opened by EXAMINE, or whose files cannot be changed."""

    imap_code = "NOPERM"
    text = "the mailbox is open read-only"


class MessageExpunged(MailError):
    """The message has been removed by another session or program (RFC 5530 EXPUNGEISSUED)."""

    imap_code = "EXPUNGEISSUED"
    text = "some of the messages no longer exist"


class MailboxChanged(MailError):
    """The mailbox was deleted, renamed or recreated (with another UIDVALIDITY) during this session."""

    imap_code = "NONEXISTENT"
    text = "the mailbox is no longer the one that was opened"


class InUse(MailError):
    """A lock could not be acquired in time (RFC 5530 INUSE, RFC 2449 IN-USE)."""

    imap_code = "INUSE"
    smtp_reply = (451, "4.3.0")
    pop3_code = "IN-USE"
    text = "another program is using the mailbox, try again"


class StorageFailure(MailError):
    """A system call of the storage failed."""

    @property
    def reason(self) -> str:
        """See MailError. With the system's error, which names the file and is not for clients."""
        return super().reason if self.__cause__ is None else f"{super().reason}: {self.__cause__}"


class NoSpace(StorageFailure):
    """No space or inodes are left, or the file-size limit is reached."""

    imap_code = "UNAVAILABLE"
    smtp_reply = (452, "4.3.1")
    pop3_code = "SYS/TEMP"
    text = "no space left, try again later"


class StoreUnavailable(StorageFailure):
    """The storage failed: input/output error, permissions."""

    imap_code = "UNAVAILABLE"
    smtp_reply = (451, "4.3.0")
    pop3_code = "SYS/TEMP"
    text = "the mail storage is not available, try again later"


class Cancelled(MailError):
    """The session was asked to end, or has ended, before its command was complete."""

    imap_code = "UNAVAILABLE"
    smtp_reply = (451, "4.3.2")
    pop3_code = "SYS/TEMP"
    text = "given up, as the session ends: try again"


class BadCharset(MailError):
    """The charset is not supported (RFC 3501 6.4.4 BADCHARSET)."""

    imap_code = "BADCHARSET"
    text = "that charset is not supported"


class NoSuchUser(MailError):
    """A local recipient that does not exist."""

    imap_code = "NONEXISTENT"
    smtp_reply = (550, "5.1.1")
    text = "no such user here"


class AddressLoop(MailError):
    """An address whose aliases lead back to it (RFC 3463 X.4.6)."""

    smtp_reply = (554, "5.4.6")
    text = "the aliases of this address lead round in a loop"


class TooManyEnds(MailError):
    """An address that leads to more mailboxes than one message may have (RFC 3463 X.5.3)."""

    smtp_reply = (452, "4.5.3")
    text = "this address leads to too many mailboxes"


class LeadsElsewhere(MailError):
    """An address whose mail would have to leave, where nothing carries it."""

    smtp_reply = (550, "5.7.1")
    text = "this address leads to another server, and mail is not passed on from here"


class SenderRefused(MailError):
    """The sender's address does not belong to the login (RFC 6409 6.1)."""

    smtp_reply = (550, "5.7.1")
    text = "this sender address does not belong to your login"


class RelayRefused(MailError):
    """Mail for another domain, without a configured relay."""

    smtp_reply = (550, "5.7.1")
    text = "relaying is not configured"


class RelayDown(MailError):
    """The next hop cannot be reached now."""

    smtp_reply = (451, "4.4.1")
    text = "the next hop cannot be reached, try again later"

    def __init__(self, text: str | None = None, *, cause: str = "") -> None:
        """`cause` is for logs and reports of the queue: the client is not told where the connection leads."""
        super().__init__(text)
        self._cause = cause

    @property
    def reason(self) -> str:
        """As the parent."""
        return self._cause or super().reason


class MailLoop(MailError):
    """The message has passed too many servers (RFC 5321 6.3, RFC 3463 X.4.6)."""

    smtp_reply = (554, "5.4.6")
    text = "too many Received fields: the message goes round in a loop"


class BadMessage(MailError):
    """Message data that is never accepted: bare CR or LF, no usable From (RFC 5321 2.3.8, RFC 6409 8)."""

    imap_code = "CANNOT"
    smtp_reply = (550, "5.6.0")
    text = "the message is not well-formed"
