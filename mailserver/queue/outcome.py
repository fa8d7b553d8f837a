"""The outcome of a try: what a reply of the hop, or its absence, means for a recipient (RFC 5321 4.2, RFC 3463).

A reply to MAIL, RCPT, DATA or the message concerns the recipient, also 421. Any refusal before MAIL is the hop's fault: other
recipients would fare no better, and the next address of the destination may take the message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

from attrs import frozen

from mailserver.queue.sanitize import printable

Stage = Literal["connect", "greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "message"]
"""The command that a reply belongs to; `message` is the end of the message, behind its final dot."""
Result = Literal["passed_on", "relayed", "delivered", "deferred", "failed", "again", "hop_failed"]
"""The result for the recipient.

passed_on   a hop that offers DSN has it, NOTIFY included
relayed     a hop without DSN has it
delivered   it is in a mailbox here
deferred    wait by the schedule
failed      for good
again       at once, in the next transaction
hop_failed  the hop takes nothing now: the destination waits
"""

COMMANDS: Final[dict[Stage, str]] = {
    "connect": "connection",
    "greeting": "connection",
    "ehlo": "EHLO",
    "starttls": "STARTTLS",
    "auth": "AUTH",
    "mail": "MAIL FROM",
    "rcpt": "RCPT TO",
    "data": "DATA",
    "message": "end of DATA",
}
_OF_RECIPIENT: Final = frozenset({"mail", "rcpt", "data", "message"})
_ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)")
_MAX_LINES: Final = 10
_TOO_MANY: Final = frozenset({452, 552})


@frozen
class Outcome:
    """The result of a try for one recipient."""

    result: Result
    status: str = "2.0.0"
    """RFC 3463."""
    text: str = ""
    """The hop's words, or the reason, in printable ASCII on one line."""
    code: int = 0
    """The hop's reply code; 0: there was no reply."""
    stage: Stage | None = None
    """The command that was answered; None: it is not known, or there was none."""
    hop: str = ""
    """The name of the hop that replied, with its address."""
    may_have_arrived: bool = False
    """The whole message was sent, and no reply came."""

    @property
    def diagnostic(self) -> str:
        """The reply as the hop gave it, or the reason."""
        return f"{self.code} {self.text}".rstrip() if self.code else self.text


def outcome_of_reply(
    stage: Stage,
    code: int,
    lines: Sequence[str | bytes],
    *,
    hop: str = "",
    dsn_offered: bool = False,
    others_accepted: bool = False,
) -> Outcome:
    """The outcome of a reply that ends the try.

    `lines` are its texts without the codes; they may lie and have any octets. `others_accepted`: the hop has accepted
    other recipients in this transaction, so that 452 and 552 mean too many (RFC 5321 4.5.3.1.10).
    """
    text = " ".join(printable(line) for line in lines[:_MAX_LINES]).strip()
    expected = 3 if stage == "data" else 2
    family = code // 100
    named = _ENHANCED.match(text)
    status = named[1] if named and named[1][0] == str(family) else f"{family}.0.0"
    if stage == "message" and family == expected:
        return Outcome("passed_on" if dsn_offered else "relayed", status, text, code, stage, hop)
    if family not in {4, 5} or not 400 <= code <= 599:
        # Not what SMTP allows here. The message may have been taken if this was the reply to it.
        return Outcome(
            "deferred" if stage in _OF_RECIPIENT else "hop_failed", "4.5.0", text, code, stage, hop, stage == "message"
        )
    if stage not in _OF_RECIPIENT:
        return Outcome("hop_failed", "4" + status[1:], text, code, stage, hop)
    if stage == "rcpt" and code in _TOO_MANY and others_accepted:
        return Outcome("again", "4.5.3", text, code, stage, hop)
    return Outcome("failed" if family == 5 else "deferred", status, text, code, stage, hop)


def outcome_of_silence(stage: Stage, reason: str, *, hop: str = "") -> Outcome:
    """No reply came: the connection could not be made, was cut, or timed out (RFC 3463 X.4.1, X.4.2)."""
    status = "4.4.1" if stage == "connect" else "4.4.2"
    text = printable(reason)
    # Once a transaction has begun, the message itself may be what the hop cannot bear: others shall not wait behind it.
    result: Result = "deferred" if stage in _OF_RECIPIENT else "hop_failed"
    return Outcome(result, status, text, 0, stage, hop, stage == "message")


def delivered_here(hop: str = "") -> Outcome:
    """It is in a mailbox of this server."""
    return Outcome("delivered", text="delivered to mailbox", hop=hop)


def refused_here(status: str, text: str, hop: str = "") -> Outcome:
    """A refusal of this server itself: for good with a status of class 5, else for now."""
    return Outcome("failed" if status.startswith("5") else "deferred", status, printable(text), hop=hop)


def no_such_domain(domain: str) -> Outcome:
    """The recipient's domain does not exist (RFC 3463 X.1.2)."""
    return Outcome("failed", "5.1.2", f"domain {printable(domain)} does not exist")


def null_mx(domain: str) -> Outcome:
    """The recipient's domain accepts no mail (RFC 7505 4.1)."""
    return Outcome("failed", "5.1.10", f"domain {printable(domain)} does not accept mail (null MX)")


def loops_back(name: str) -> Outcome:
    """The hop is this server (RFC 3463 X.4.6)."""
    return Outcome("failed", "5.4.6", f"mail for {printable(name)} loops back to this server")
