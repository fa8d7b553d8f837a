"""What each protocol has by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import frozen

from mailserver.config.kinds import Count, Network, NextHop, Port, Seconds, Size, TlsVersion
from mailserver.config.model.keys import setting


@frozen
class Imap:
    """[imap]"""

    literal: Literal["plus", "minus"] = setting("Offer LITERAL+ or LITERAL- (RFC 7888).", default="plus")
    idle_notice: Seconds = setting("Seconds between `* OK Still here` in IDLE.", default=120.0)
    timeout: Seconds = setting(
        "Seconds without a command before the session ends; at least 1800 (RFC 3501 5.4).", default=1860.0
    )
    max_line: Size = setting("Longest command line, octets, literals apart; at least 8192 (RFC 7162 4).", default=65536)


@frozen
class Pop3:
    """[pop3]"""

    uidl_format: str = setting(
        "UIDL: %v UIDVALIDITY, %u UID, with Dovecot's width and X for hexadecimal; %f file name, %g GUID. Dovecot 2.4's "
        "%{uid | hex(8)} and its like may stand, too.",
        default="%08Xu%08Xv",
    )
    lock: Literal["none", "session"] = setting(
        "Whether a session locks out other POP3 sessions of the user.", default="none"
    )
    timeout: Seconds = setting("Seconds without a command; at least 600 (RFC 1939).", default=600.0)


@frozen
class Relay:
    """[submission.relay]"""

    host: NextHop = setting("The next hop: a host name or an IP address.", example="smtp.example.net")
    port: Port = setting("Its port.", default=587)
    tls: Literal["starttls", "implicit", "none"] = setting(
        "How its connection is secured; none only on loopback.", default="starttls"
    )
    ca_file: Path | None = setting(
        "Authorities that may have signed its certificate; the system's when absent.",
        default=None,
        example="/etc/mailserver/relay-ca.pem",
    )
    verification: Literal["required", "none"] = setting(
        "Whether its certificate must be valid for its name; none lets anybody between here and there read the mail and "
        "the password.",
        default="required",
    )
    minimum_version: TlsVersion = setting("Oldest TLS version spoken to it.", default="1.2")
    certificate: Path | None = setting(
        "PEM file of our own certificate, and its chain, for a hop that asks for one; read by the service's user.",
        default=None,
        example="/etc/mailserver/relay.pem",
    )
    key: Path | None = setting(
        "PEM file of its key; read by the service's user.",
        default=None,
        example="/etc/mailserver/relay.key",
        hidden=True,
    )
    key_password_file: Path | None = setting(
        "File with the key's password on its first line; read by the service's user.",
        default=None,
        example="/etc/mailserver/relay-key-password",
        hidden=True,
    )
    user: str = setting("Name to log in with; no login when empty.", default="", example="example.org")
    password_file: Path | None = setting(
        "File with the password on its first line.",
        default=None,
        example="/etc/mailserver/relay-password",
        hidden=True,
    )
    timeout: Seconds = setting("Seconds for each of its answers.", default=300.0)


@frozen
class Submission:
    """[submission]"""

    max_recipients: Count = setting("Recipients of one message; at least 100 (RFC 5321 4.5.3.1.8).", default=1000)
    timeout: Seconds = setting("Seconds without a command; at least 300 (RFC 5321 4.5.3.2.7).", default=300.0)
    relay: Relay | None = setting("Where mail for other domains is handed to.", default=None)


@frozen
class Lmtp:
    """[lmtp]"""

    detail_separator: str = setting(
        "What separates the detail of an address (user+detail); empty for none.", default="+"
    )
    max_recipients: Count = setting("Recipients of one message; at least 100 (RFC 5321 4.5.3.1.8).", default=1000)
    timeout: Seconds = setting("Seconds without a command; at least 300 (RFC 5321 4.5.3.2.7).", default=300.0)


@frozen
class Http:
    """[http]"""

    metrics_from: tuple[Network, ...] = setting(
        "Networks that may read /metrics and /health. Behind an HTTP proxy on this machine all clients come from loopback: "
        "have it send a PROXY header (proxy_from), or leave loopback out.",
        default=(Network("127.0.0.0/8"), Network("::1/128")),
        example=["127.0.0.0/8", "::1/128", "192.0.2.0/24"],
    )
