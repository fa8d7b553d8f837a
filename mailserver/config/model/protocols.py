"""Tables of the protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import Factory, frozen

from mailserver.config.kinds import Count, Limit, Network, NextHop, Port, Seconds, Size, TlsVersion
from mailserver.config.model.keys import setting


@frozen
class HiddenCapabilities:
    """[[imap.hide]]"""

    capabilities: tuple[str, ...] = setting(
        "Capabilities that are not listed where all other keys of this table fit; * and ? stand for any characters, any case fits. "
        "Their commands still work.",
        example=["CONDSTORE", "QRESYNC"],
    )
    client: dict[str, tuple[str, ...]] = setting(
        "Fields of the client's ID (RFC 2971), each with a pattern or an array of them. When empty, any client.",
        default=Factory(dict),
        example={"name": ("Outlook*",), "version": ("16.*",)},
    )
    users: tuple[str, ...] = setting(
        "Patterns of user names; they fit once the user has logged in. When empty, any user.",
        default=(),
        example=["*@example.org"],
    )
    ports: tuple[Port, ...] = setting("Ports of the listeners. When empty, any listener.", default=(), example=[143])


@frozen
class Imap:
    """[imap]"""

    literal: Literal["plus", "minus"] = setting("Offer LITERAL+ or LITERAL- (RFC 7888).", default="plus")
    idle_notice: Seconds = setting("Seconds between `* OK Still here` in IDLE.", default=120.0)
    timeout: Seconds = setting(
        "Seconds without a command before the session ends; at least 1800 (RFC 3501 5.4).", default=1860.0
    )
    max_line: Size = setting("Longest command line, octets, literals apart; at least 8192 (RFC 7162 4).", default=65536)
    compress: bool = setting(
        "Offer COMPRESS=DEFLATE (RFC 4978) once a client has logged in: some 60 KiB of memory for each connection that uses it.",
        default=True,
    )
    metadata_entries: Count = setting(
        "Annotations (RFC 5464) of a mailbox, and of an account itself; at least 10.", default=32
    )
    metadata_size: Size = setting("Octets of one annotation; 1024 to 65536.", default=8192)
    server_comment: str = setting("The entry /shared/comment of the server (RFC 5464 3.2.1.1).", default="")
    server_admin: str = setting(
        "The entry /shared/admin of the server: a URI to reach the administrator.",
        default="",
        example="mailto:postmaster@example.org",
    )
    message_limit: Limit = setting(
        "Messages that one command may process (MESSAGELIMIT, RFC 9738); 0: any number, else at least 1000. Clients that do not "
        "know the extension see only the newest messages of larger mailboxes.",
        default=0,
    )
    save_limit: Limit = setting(
        "Messages that one COPY or APPEND may save (SAVELIMIT, RFC 9738); 0: any number, else at least 1000. Contained in message_limit.",
        default=0,
    )
    filters: dict[str, tuple[str, ...]] = setting(
        "Shared filters (RFC 5466), each with its search keys: the entries /shared/filters/values/NAME of the server.",
        default=Factory(dict),
        example={"unread": ("UNSEEN UNDELETED",)},
    )
    id: dict[str, tuple[str, ...]] = setting(
        "Fields of the answer to ID (RFC 2971), at most 30. When empty, the answer is NIL.",
        default=Factory(lambda: {"name": ("mailserver",)}),
        example={"name": ("mailserver",), "support-url": ("https://example.org/help",)},
    )
    hide: tuple[HiddenCapabilities, ...] = ()
    """[[imap.hide]]"""


@frozen
class Pop3:
    """[pop3]"""

    uidl_format: str = setting(
        "Format of UIDL: %v is the UIDVALIDITY, %u the UID, with Dovecot's width and X for hexadecimal; %f is the file name, %g "
        "the GUID. Dovecot 2.4's notation, such as %{uid | hex(8)}, works, too.",
        default="%08Xu%08Xv",
    )
    lock: Literal["none", "session"] = setting(
        "Lock the maildrop during a session against other POP3 sessions of the user, or not at all.", default="none"
    )
    timeout: Seconds = setting("Seconds without a command; at least 600 (RFC 1939).", default=600.0)


@frozen
class Relay:
    """[submission.relay]"""

    host: NextHop = setting("The next hop: a host name or an IP address.", example="smtp.example.net")
    port: Port = setting("Its port.", default=587)
    tls: Literal["starttls", "implicit", "none"] = setting(
        "Security of its connection; none only on loopback.", default="starttls"
    )
    ca_file: Path | None = setting(
        "Trusted authorities for its certificate. When absent, the system's.",
        default=None,
        example="/etc/mailserver/relay-ca.pem",
    )
    verification: Literal["required", "none"] = setting(
        "Whether its certificate must be valid for its name. none exposes mail and password to anybody on the path.",
        default="required",
    )
    minimum_version: TlsVersion = setting("Oldest TLS version used with it.", default="1.2")
    certificate: Path | None = setting(
        "PEM file of the client certificate and its chain, for a next hop that requests one; read by the service's user.",
        default=None,
        example="/etc/mailserver/relay.pem",
    )
    key: Path | None = setting(
        "PEM file of the client certificate's key; read by the service's user.",
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
    user: str = setting(
        "User name of the login there. When empty, there is no login.", default="", example="example.org"
    )
    password_file: Path | None = setting(
        "File with the password on its first line.",
        default=None,
        example="/etc/mailserver/relay-password",
        hidden=True,
    )
    timeout: Seconds = setting("Timeout of each of its answers, in seconds.", default=300.0)


@frozen
class Submission:
    """[submission]"""

    max_recipients: Count = setting("Recipients of one message; at least 100 (RFC 5321 4.5.3.1.8).", default=1000)
    timeout: Seconds = setting("Seconds without a command; at least 300 (RFC 5321 4.5.3.2.7).", default=300.0)
    hide_client: bool = setting(
        "Leave the address and the name of the sender's machine out of the Received field. The log has them.",
        default=False,
    )
    relay: Relay | None = setting("Next hop for mail to other domains.", default=None)


@frozen
class Lmtp:
    """[lmtp]"""

    detail_separator: str = setting("Separator of the detail in an address (user+detail); empty for none.", default="+")
    max_recipients: Count = setting("Recipients of one message; at least 100 (RFC 5321 4.5.3.1.8).", default=1000)
    timeout: Seconds = setting("Seconds without a command; at least 300 (RFC 5321 4.5.3.2.7).", default=300.0)


@frozen
class Http:
    """[http]"""

    metrics_from: tuple[Network, ...] = setting(
        "Networks that may read /metrics and /health. Behind an HTTP proxy on this machine all clients come from loopback: "
        "have the proxy send a PROXY header (proxy_from), or remove loopback.",
        default=(Network("127.0.0.0/8"), Network("::1/128")),
        example=["127.0.0.0/8", "::1/128", "192.0.2.0/24"],
    )
