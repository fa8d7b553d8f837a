"""Header fields that the server itself writes (RFC 5321 4.4, RFC 3848, RFC 6409 8)."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import IPv6Address

from mailserver.session.channel import ConnectionInfo
from mailserver.smtp.address import Address


def format_date(seconds: float) -> str:
    """A date-time of RFC 5322 3.3, in UTC."""
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC))


def protocol_name(info: ConnectionInfo, *, extended: bool, authenticated: bool, utf8: bool = False) -> str:
    """The word behind `with` (RFC 3848, RFC 6531 4.3): ESMTPSA, UTF8SMTPSA, LMTP and so on. `utf8`: MAIL had SMTPUTF8."""
    if not extended:
        return "SMTP"
    smtp, lmtp = ("UTF8SMTP", "UTF8LMTP") if utf8 else ("ESMTP", "LMTP")
    name = lmtp if info.protocol == "lmtp" else smtp
    return name + ("S" if info.tls else "") + ("A" if authenticated else "")


def received_field(
    info: ConnectionInfo,
    *,
    hello: str,
    hostname: str,
    protocol: str,
    message: str,
    recipient: Address | None,
    now: float,
    hide_client: bool = False,
) -> bytes:
    """The Received field, in UTF-8 (RFC 6531 3.7.3); `recipient` is given only where no other recipient sees it.

    `hide_client`: neither the client's address nor the name that it gave is in it.
    """
    peer = ""
    if hide_client:
        hello = "localhost"  # the clause must be there (RFC 5321 4.4)
    elif info.peer is not None:
        peer = f" ([{'IPv6:' if isinstance(info.peer, IPv6Address) else ''}{info.peer}])"
    recipient_clause = f"\r\n\tfor <{recipient}>" if recipient else ""
    return (
        f"Received: from {hello}{peer}\r\n\tby {hostname} with {protocol} id {message}{recipient_clause};"
        f"\r\n\t{format_date(now)}\r\n"
    ).encode("utf-8", "replace")


def new_message_id(hostname: str, now: float) -> str:
    """A Message-ID (RFC 5322 3.6.4)."""
    return f"<{int(now * 1_000_000):x}.{secrets.token_hex(8)}@{hostname}>"
