"""Delivery reports (RFC 3464, 6522; RFC 6533 with UTF-8), worded as people know them from Postfix.

A report is composed whole and has a bounded size: what it returns of the message is the caller's choice by `returns_whole`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, Literal

from attrs import frozen

from mailserver.message.headers import header_end
from mailserver.queue.dsn_parameters import ascii_address, decode_xtext, original_recipient
from mailserver.queue.model import Envelope, Target
from mailserver.queue.outcome import COMMANDS, Outcome
from mailserver.queue.sanitize import address_text, field, paragraph, printable

Action = Literal["failed", "delayed", "relayed", "delivered"]
WHOLE_UNASKED: Final = 50_000
"""Octets of a message that a failure returns without RET: Postfix's `bounce_size_limit`."""
WHOLE_AT_MOST: Final = 1 << 20
"""The same with RET=FULL: a larger message is returned by its header (RFC 3461 5.2 leaves that to the server)."""
MAX_HEADER: Final = 64 * 1024
"""Octets of the header that are returned."""
MAX_RECIPIENTS: Final = 1000
"""Recipients that one report names; more come in further reports."""

_SUBJECTS: Final[dict[Action, str]] = {
    "failed": "Undelivered Mail Returned to Sender",
    "delayed": "Delayed Mail (still being retried)",
    "relayed": "Successful Mail Delivery Report",
    "delivered": "Successful Mail Delivery Report",
}
_WHAT: Final[dict[Action, str]] = {
    "failed": "Undelivered Message",
    "delayed": "Delayed Message",
    "relayed": "Message",
    "delivered": "Message",
}
_INTRODUCTIONS: Final[dict[Action, str]] = {
    "failed": """\
I'm sorry to have to inform you that your message could not
be delivered to one or more recipients. It's attached below.

For further assistance, please send mail to postmaster.

If you do so, please include this problem report. You can
delete your own text from the attached returned message.
""",
    "delayed": """\
####################################################################
# THIS IS A WARNING ONLY.  YOU DO NOT NEED TO RESEND YOUR MESSAGE. #
####################################################################

Your message could not be delivered for more than {hours} hour(s).
It will be retried until {expires}.

For further assistance, please send mail to postmaster.

If you do so, please include this problem report. You can
delete your own text from the attached returned message.
""",
    "relayed": """\
Your message was successfully delivered to the destination(s)
listed below. If the message was delivered to mailbox you will
receive no further notifications. Otherwise you may still receive
notifications of mail delivery errors from other systems.
""",
    "delivered": """\
Your message was successfully delivered to the destination(s)
listed below. If the message was delivered to mailbox you will
receive no further notifications. Otherwise you may still receive
notifications of mail delivery errors from other systems.
""",
}


@frozen
class ReportedRecipient:
    """One recipient of a report."""

    target: Target
    outcome: Outcome
    last_try: int | None = None


@frozen
class Subject:
    """The message that a report is about."""

    envelope: Envelope
    name: str
    """Its spool name."""
    expires: int
    content: bytes
    """The whole message, or at least its header."""
    whole: bool
    """Is `content` the whole message, to be returned as such?"""


def returns_whole(action: Action, envelope: Envelope, size: int) -> bool:
    """Does a report return the whole message? Only of failures (RFC 3461 4.3)."""
    if action != "failed" or envelope.ret == "HDRS":
        return False
    return size <= (WHOLE_AT_MOST if envelope.ret == "FULL" else WHOLE_UNASKED)


def compose(
    action: Action,
    subject: Subject,
    recipients: Sequence[ReportedRecipient],
    *,
    hostname: str,
    now: int,
    unique: str,
) -> bytes:
    """The report as a message with CRLF. `unique`: a word that no message has, for Message-ID and boundary."""
    utf8 = subject.envelope.utf8
    boundary = f"{unique}/{hostname}"
    returned = _returned(subject)
    eight_bit = utf8 or not returned.isascii()
    head = "".join(
        (
            field("From", f"Mail Delivery System <MAILER-DAEMON@{hostname}>"),
            field("To", f"<{address_text(subject.envelope.sender, utf8=utf8)}>"),
            field("Subject", _SUBJECTS[action]),
            field("Date", _date(now)),
            field("Message-ID", f"<{unique}@{hostname}>"),
            field("Auto-Submitted", "auto-replied"),
            "MIME-Version: 1.0\r\n",
            f'Content-Type: multipart/report; report-type=delivery-status;\r\n    boundary="{boundary}"\r\n',
            "Content-Transfer-Encoding: 8bit\r\n" if eight_bit else "",
            "\r\nThis is a MIME-encapsulated message.\r\n",
        )
    )
    status_type = "message/global-delivery-status" if utf8 else "message/delivery-status"
    whole = subject.whole
    if utf8:
        returned_type = "message/global" if whole else "message/global-headers"
    else:
        returned_type = "message/rfc822" if whole else "text/rfc822-headers"
    what = _WHAT[action] + ("" if whole else " Headers")
    parts = (
        _part(boundary, "Notification", f"text/plain; charset={'utf-8' if utf8 else 'us-ascii'}", utf8),
        _notification(action, subject, recipients, hostname, now),
        _part(boundary, "Delivery report", status_type, utf8),
        _delivery_status(action, subject, recipients, hostname),
        _part(boundary, what, returned_type, not returned.isascii()),
    )
    return (head + "".join(parts)).encode("utf-8") + returned + f"\r\n--{boundary}--\r\n".encode("ascii")


def _part(boundary: str, description: str, content_type: str, eight_bit: bool) -> str:
    encoding = "Content-Transfer-Encoding: 8bit\r\n" if eight_bit else ""
    return f"\r\n--{boundary}\r\nContent-Description: {description}\r\nContent-Type: {content_type}\r\n{encoding}\r\n"


def _returned(subject: Subject) -> bytes:
    """The content that the report returns: lines end in CRLF, and a NUL, which no server passes on, is a question mark."""
    content = subject.content if subject.whole else subject.content[: 2 * MAX_HEADER]
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n").replace(b"\0", b"?")
    return content if subject.whole else content[: min(header_end(content), MAX_HEADER)]


def _notification(
    action: Action, subject: Subject, recipients: Sequence[ReportedRecipient], hostname: str, now: int
) -> str:
    introduction = _INTRODUCTIONS[action]
    if action == "delayed":
        hours = max(1, (now - subject.envelope.received) // 3600)
        introduction = introduction.format(hours=hours, expires=_date(subject.expires))
    elif action == "failed" and not subject.whole:
        introduction = introduction.replace("It's attached below.", "Its header is attached below.")
    text = f"This is the mail system at host {hostname}.\n\n{introduction}\n                   The mail system\n"
    sentences = "".join("\r\n" + paragraph(_sentence(each, subject.envelope.utf8)) for each in recipients)
    return text.replace("\n", "\r\n") + sentences


def _sentence(recipient: ReportedRecipient, utf8: bool) -> str:
    """The outcome for people: `<user@example.org>: host mx.example.org said: 550 5.1.1 no such user (in reply to RCPT TO command)`."""
    outcome = recipient.outcome
    start = f"<{address_text(recipient.target.address, utf8=utf8)}>: "
    original = _original(recipient.target, utf8)
    if original and original[1] != address_text(recipient.target.address, utf8=utf8):
        start = f"{start[:-2]} (expanded from <{original[1]}>): "
    if outcome.code and outcome.result in {"relayed", "passed_on", "delivered"}:
        return f"{start}delivery via {printable(outcome.hop)}: {outcome.diagnostic}"
    if outcome.code and outcome.hop:
        return f"{start}host {printable(outcome.hop)} said: {outcome.diagnostic}{_command(outcome)}"
    return start + (outcome.text or "no reason is known")


def _command(outcome: Outcome) -> str:
    """The command that the hop answered, in parentheses."""
    if outcome.stage is None:
        return ""
    kind = " command" if outcome.stage in {"ehlo", "starttls", "auth", "mail", "rcpt", "data"} else ""
    return f" (in reply to {COMMANDS[outcome.stage]}{kind})"


def _delivery_status(action: Action, subject: Subject, recipients: Sequence[ReportedRecipient], hostname: str) -> str:
    """RFC 3464 2.2 and 2.3."""
    envelope = subject.envelope
    sender_type = "rfc822" if envelope.sender.isascii() else "utf-8"
    sender = address_text(envelope.sender, utf8=True)
    groups: list[tuple[str, ...]] = [
        (
            field("Original-Envelope-Id", printable(decode_xtext(envelope.envid))) if envelope.envid else "",
            field("Reporting-MTA", f"dns; {hostname}"),
            field("X-Queue-ID", printable(subject.name)),
            field("X-Sender", f"{sender_type}; {sender if envelope.utf8 else ascii_or_encoded(sender)}"),
            field("Arrival-Date", _date(envelope.received)),
        )
    ]
    groups += [_recipient_fields(action, subject, each) for each in recipients]
    return "\r\n".join("".join(group) for group in groups)


def _recipient_fields(action: Action, subject: Subject, recipient: ReportedRecipient) -> tuple[str, ...]:
    outcome, utf8 = recipient.outcome, subject.envelope.utf8
    original = _original(recipient.target, utf8)
    # A diagnostic of type smtp is a reply as the hop gave it (RFC 3464 2.3.6); reasons of ours are of our own type.
    diagnostic = f"{'smtp' if outcome.code else 'X-mailserver'}; {outcome.diagnostic}" if outcome.diagnostic else ""
    return (
        field("Original-Recipient", f"{original[0]};{original[1]}") if original else "",
        field("Final-Recipient", _final_recipient(recipient.target.address, utf8)),
        field("Action", action),
        field("Status", outcome.status),
        field("Remote-MTA", f"dns; {_host(outcome.hop)}") if outcome.hop and outcome.code else "",
        field("Diagnostic-Code", diagnostic) if diagnostic else "",
        field("Last-Attempt-Date", _date(recipient.last_try)) if recipient.last_try is not None else "",
        field("Will-Retry-Until", _date(subject.expires)) if action == "delayed" else "",
    )


def _final_recipient(address: str, utf8: bool) -> str:
    if address.isascii():
        return f"rfc822; {address_text(address, utf8=False)}"
    return f"utf-8; {address_text(address, utf8=True) if utf8 else ascii_or_encoded(address_text(address, utf8=True))}"


def ascii_or_encoded(address: str) -> str:
    """An address as it is if it is ASCII, else in the form utf-8-addr-xtext (RFC 6533 3), within the length of a line."""
    return printable(address if address.isascii() else ascii_address(address), 900)


def _original(target: Target, utf8: bool) -> tuple[str, str] | None:
    """Type and address of ORCPT, as the sender named the recipient."""
    if not target.orcpt:
        return None
    kind, address = original_recipient(target.orcpt)
    address = address_text(address, utf8=True)
    return printable(kind, 64), address if utf8 else ascii_or_encoded(address)


def _host(hop: str) -> str:
    """The host name of `mx.example.org[192.0.2.1]:25`."""
    return printable(hop).partition("[")[0] or printable(hop)


def _date(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))
