"""The configuration as typed, frozen values. One class per table of the TOML file; `load` makes them.

Each key's meaning, default and an example stand beside it, and `describe` turns them into etc/mailserver.toml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import Factory, frozen


def key(doc: str, *, default: Any = attrs.NOTHING, example: Any = None) -> Any:
    """One key: what it means, its default (none: it must be given), an example in TOML's words."""
    return attrs.field(default=default, metadata={"doc": doc, "example": example})


@frozen
class Server:
    """[server]"""

    hostname: str = key("Name in greetings and Received fields.", example="mail.example.org")
    user: str = key("System user that owns all mail and runs the service. Needed when started as root.", default="")
    group: str = key("System group; the user's own when empty.", default="")
    runtime_dir: Path = key("Directory of the control socket.", default=Path("/run/mailserver"))
    log_file: Path | None = key("Log file instead of standard error; SIGUSR1 reopens it.", default=None)


@frozen
class Tls:
    """[tls]"""

    default: str = key("Host name whose certificate is served to clients that send no name.", default="")
    unknown_name: Literal["default", "refuse"] = key(
        "A name that no certificate covers: serve the default, or refuse with alert unrecognized_name.",
        default="default",
    )
    minimum_version: Literal["1.2", "1.3"] = key("Oldest TLS version accepted.", default="1.2")
    ciphers: str = key(
        "TLS 1.2 cipher suites, in OpenSSL's notation; no CBC.",
        default="ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL",
    )
    groups: str = key("Key exchange groups, in OpenSSL's notation.", default="X25519:P-256:P-384")


@frozen
class Domain:
    """[[domain]]"""

    name: str = key("Mail domain: what stands behind the @.", example="example.org")
    hosts: tuple[str, ...] = key(
        "Host names that clients of this domain connect to; *.name covers one label.", example=["mail.example.org"]
    )
    certificate: Path = key(
        "PEM file: the certificate, then its chain.", example="/etc/mailserver/certs/mail.example.org.pem"
    )
    key: Path = key("PEM file of the private key.", example="/etc/mailserver/certs/mail.example.org.key")


@frozen
class Listener:
    """[[listener]]"""

    protocol: Literal["imap", "imaps", "pop3", "pop3s", "submission", "submissions", "lmtp"] = key(
        "What is served; a final s is implicit TLS (RFC 8314), without it STARTTLS."
    )
    port: int | None = key("TCP port; the protocol's own when absent.", default=None)
    addresses: tuple[str, ...] = key("IP addresses to bind; all, or loopback for lmtp, when empty.", default=())
    socket: Path | None = key("Unix socket instead of a port.", default=None)
    allow_cleartext: bool = key("Accept passwords without TLS here; only on loopback and Unix sockets.", default=False)
    require_tls: bool = key("lmtp: nothing but STARTTLS before TLS.", default=False)
    proxy_from: tuple[str, ...] = key("Networks whose connections begin with a PROXY protocol header.", default=())


@frozen
class Mail:
    """[mail]"""

    root: Path = key("Directory of all mail.", example="/var/mail/domains")
    location: str = key(
        "Maildir of an account: a template of {root}, {user}, {local}, {domain}, {home}.",
        default="{root}/{domain}/{local}/Maildir",
    )
    separator: str = key("Hierarchy separator that IMAP clients see: / or .", default="/")
    prefix: str = key("Namespace prefix that IMAP clients see, such as INBOX.", default="")
    utf8_names: bool = key("Folder names on disk are UTF-8 instead of modified UTF-7.", default=False)
    special_use: dict[str, str] = key(
        "Folder names of a new account by special use.",
        default=Factory(
            lambda: {"Drafts": "Drafts", "Sent": "Sent", "Junk": "Junk", "Trash": "Trash", "Archive": "Archive"}
        ),
    )
    max_message_size: int = key("Largest message accepted, octets.", default=64 * 1024 * 1024)


@frozen
class Auth:
    """[auth]"""

    backends: tuple[str, ...] = key(
        "Back ends in the order they are asked, NAME:ARGUMENT.", example=["file:/etc/mailserver/users"]
    )
    default_domain: str = key(
        "Domain of names without one, after the name as it is and the SNI name's domain.", default=""
    )
    mechanisms: tuple[str, ...] = key("SASL mechanisms offered.", default=("PLAIN", "LOGIN"))
    hash_processes: int = key("Processes that check password hashes.", default=2)
    hash_queue: int = key("Password checks that may wait; more are told to try again.", default=64)
    failure_delay: float = key(
        "Seconds that the first failure of a user from a network costs; each doubles.", default=1.0
    )
    failure_delay_max: float = key("Longest delay, seconds.", default=15.0)


@frozen
class Imap:
    """[imap]"""

    literal: Literal["plus", "minus"] = key("Offer LITERAL+ or LITERAL- (RFC 7888).", default="plus")
    idle_notice: float = key("Seconds between `* OK Still here` in IDLE.", default=120.0)
    timeout: float = key(
        "Seconds without a command before the session ends; at least 1800 (RFC 3501 5.4).", default=1860.0
    )
    max_line: int = key("Longest command line, octets, literals apart.", default=65536)


@frozen
class Pop3:
    """[pop3]"""

    uidl_format: str = key(
        "UIDL: %v UIDVALIDITY, %u UID, with Dovecot's width and X for hexadecimal.", default="%08Xu%08Xv"
    )
    lock: Literal["none", "session"] = key(
        "Whether a session locks out other POP3 sessions of the user.", default="none"
    )
    timeout: float = key("Seconds without a command; at least 600 (RFC 1939).", default=600.0)


@frozen
class Relay:
    """[submission.relay]"""

    host: str = key("The next hop.", example="smtp.example.net")
    port: int = key("Its port.", default=587)
    tls: Literal["starttls", "implicit", "none"] = key(
        "How its connection is secured; none only on loopback.", default="starttls"
    )
    ca_file: Path | None = key(
        "Authorities that may have signed its certificate; the system's when absent.", default=None
    )
    user: str = key("Name to log in with; no login when empty.", default="")
    password_file: Path | None = key("File with the password on its first line.", default=None)
    timeout: float = key("Seconds for each of its answers.", default=300.0)


@frozen
class Submission:
    """[submission]"""

    max_recipients: int = key("Recipients of one message.", default=1000)
    timeout: float = key("Seconds without a command; at least 300 (RFC 5321 4.5.3.2.7).", default=300.0)
    relay: Relay | None = key("Where mail for other domains is handed to.", default=None)


@frozen
class Lmtp:
    """[lmtp]"""

    detail_separator: str = key("What separates the detail of an address (user+detail); empty for none.", default="+")
    max_recipients: int = key("Recipients of one message.", default=1000)
    timeout: float = key("Seconds without a command.", default=300.0)


@frozen
class Limits:
    """[limits]"""

    login_time: float = key("Seconds until a connection must have logged in.", default=180.0)
    unauthenticated_per_address: int = key("Connections of one address (IPv6: /64) not yet logged in.", default=40)
    sessions_per_user: int = key("Sessions of one user from one address.", default=20)
    connections: int = key("Connections in all.", default=10000)
    write_timeout: float = key("Seconds that a client may take nothing of an answer.", default=300.0)
    transfer_timeout: float = key("Seconds without progress inside a command, literal or message.", default=120.0)


@frozen
class Config:
    """The whole file."""

    server: Server
    mail: Mail
    auth: Auth
    domains: tuple[Domain, ...]
    """[[domain]]"""
    listeners: tuple[Listener, ...]
    """[[listener]]"""
    tls: Tls = Factory(Tls)
    imap: Imap = Factory(Imap)
    pop3: Pop3 = Factory(Pop3)
    submission: Submission = Factory(Submission)
    lmtp: Lmtp = Factory(Lmtp)
    limits: Limits = Factory(Limits)
    source: Path = Path()
    """The file it came from."""


@frozen
class Problem:
    """One thing wrong, in one line for the administrator."""

    file: str
    place: str
    """Table and key, "[listener 2] port"; empty for the whole file."""
    value: str
    """As it stands in the file; empty if a key is missing. Never a secret."""
    reason: str
    """What would be right."""
    near: str = ""
    """The key or word probably meant."""

    def __str__(self) -> str:
        where = f"{self.file} {self.place}".rstrip()
        value = f" = {self.value}" if self.value else ""
        near = f"; did you mean {self.near!r}?" if self.near else ""
        return f"{where}{value}: {self.reason}{near}"
