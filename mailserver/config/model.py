"""The configuration as typed, frozen values. One class per table of the TOML file; `load` makes them.

Each key's meaning, default and an example stand beside it, and `describe` turns them into etc/mailserver.toml. What a
value may look like is said by its type (`kinds`). What values may stand together is said in `check`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import Factory, frozen

from mailserver.config.kinds import (
    IMPLICIT_TLS,
    PORTS,
    Address,
    CipherOrder,
    ClientCertificates,
    ClientUser,
    Count,
    EarlyTls,
    Hold,
    HostName,
    HostPattern,
    Network,
    NextHop,
    OptionalHostName,
    Port,
    Preset,
    Seconds,
    Size,
    TlsVersion,
    Workers,
)


def key(doc: str, *, default: Any = attrs.NOTHING, example: Any = None, hidden: bool = False) -> Any:
    """One key: what it means, its default (none: it must be given), an example in TOML's words.

    `hidden`: people paste secrets here by mistake, so a wrong value is never shown.
    """
    return attrs.field(default=default, metadata={"doc": doc, "example": example, "hidden": hidden})


_key = key
"""For tables with a key of that name."""


def position() -> Any:
    """Where a table stands among those of its kind, from 1; the loader sets it, it is no key."""
    return attrs.field(default=0, kw_only=True, eq=False, metadata={"no_key": True})


@frozen
class Server:
    """[server]"""

    hostname: HostName = key("Name in greetings and Received fields.", example="mail.example.org")
    user: str = key(
        "System user that owns all mail and runs the service. Needed when started as root.",
        default="",
        example="mailserver",
    )
    group: str = key("System group; the user's own when empty.", default="")
    runtime_dir: Path = key("Directory of the control socket.", default=Path("/run/mailserver"))
    state_dir: Path = key(
        "Directory of what the server must remember: certificates with their keys, and which were served when. Who reads "
        "the keys owns it: root, or the user with workers = 0.",
        default=Path("/var/lib/mailserver"),
    )
    workers: Workers = key(
        "Processes that serve, each with a share of all connections: as many as there are usable processors with auto; "
        "0 has one process do everything.",
        default="auto",
    )
    log_file: Path | None = key(
        "Log file instead of standard output and twistd's; SIGUSR1 reopens it.",
        default=None,
        example="/var/log/mailserver/mailserver.log",
    )


@frozen
class Tls:
    """[tls]"""

    default: OptionalHostName = key(
        "Host name whose certificate is served to clients that send no name; "
        "when empty the first host of the first domain.",
        default="",
        example="mail.example.org",
    )
    unknown_name: Literal["default", "refuse"] = key(
        "A name that no certificate covers: serve the default, or refuse with alert unrecognized_name.",
        default="default",
    )
    preset: Preset = key(
        "What holds where the keys below are absent: for all clients of the last ten years, or also CBC suites and RSA "
        "key exchange for devices that have nothing else. docs/tls.md lists the values.",
        default="modern",
    )
    minimum_version: TlsVersion | None = key(
        "Oldest TLS version accepted; the preset's when absent.", default=None, example="1.3"
    )
    maximum_version: TlsVersion | None = key(
        "Newest TLS version accepted; the preset's when absent.", default=None, example="1.3"
    )
    ciphers: str | None = key(
        "TLS 1.2 cipher suites, in OpenSSL's notation; the preset's when absent.",
        default=None,
        example="ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL",
    )
    ciphersuites: str | None = key(
        "TLS 1.3 cipher suites by their names; the preset's when absent.",
        default=None,
        example="TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
    )
    groups: str | None = key(
        "Key exchange groups, in OpenSSL's notation; a ? stands before one that an older OpenSSL may lack.",
        default=None,
        example="?X25519MLKEM768:X25519:P-256:P-384",
    )
    cipher_order: CipherOrder | None = key(
        "Whose order of cipher suites counts; the preset's when absent.", default=None, example="server"
    )
    tickets: bool | None = key(
        "Let clients resume sessions by tickets; the preset's when absent.", default=None, example=True
    )
    follow_files: bool = key("Serve certificates that change on disk within seconds, without a reload.", default=True)
    history: Count = key("Activations kept for each host name, to go back to.", default=10)
    private_ca: Path | None = key(
        "Certificate of one's own authority (PEM), which HTTP listeners offer to people at /ca, with the steps to import it.",
        default=None,
        example="/var/lib/mailserver/ca/ca.pem",
    )


@frozen
class Site:
    """[[domain.site]]"""

    hosts: tuple[HostPattern, ...] = key(
        "Host names of the domain with a certificate of their own; *.name covers one label.",
        example=["autoconfig.example.org"],
    )
    certificate: Path | None = key(
        "PEM file: the certificate, then its chain. Without it and key, what `mailserver cert add` has added is served.",
        default=None,
        example="/etc/mailserver/certs/autoconfig.example.org.pem",
    )
    key: Path | None = key(
        "PEM file of the private key.",
        default=None,
        example="/etc/mailserver/certs/autoconfig.example.org.key",
        hidden=True,
    )
    second_certificate: Path | None = _key(
        "A second one with a key of the other type, RSA or ECDSA.",
        default=None,
        example="/etc/mailserver/certs/autoconfig.example.org-rsa.pem",
    )
    second_key: Path | None = _key(
        "The key of second_certificate.",
        default=None,
        example="/etc/mailserver/certs/autoconfig.example.org-rsa.key",
        hidden=True,
    )
    key_password_file: Path | None = _key(
        "File with the password of both keys on its first line.",
        default=None,
        example="/etc/mailserver/certs/password",
        hidden=True,
    )
    key_password_command: tuple[str, ...] = _key(
        "Program that prints the password of both keys, as for a domain's.",
        default=(),
        example=["/usr/bin/pass", "show", "mail/key"],
        hidden=True,
    )
    acme: bool = _key(
        "Get these hosts' certificates from the authority of [acme], one for each host, and renew them.", default=False
    )
    number: int = position()


@frozen
class AcmeDns:
    """[acme.dns]"""

    hook: tuple[str, ...] = key(
        "Program that changes the zone, with its arguments; run without a shell as the service's user, with three more: "
        "add or remove, the record's name, its text.",
        default=(),
        example=["/usr/local/bin/acme-dns"],
        hidden=True,
    )
    server: Address | None = key(
        "Name server that takes dynamic updates (RFC 2136), instead of a hook.", default=None, example="192.0.2.53"
    )
    port: Port = key("Its port.", default=Port(53))
    zone: str = key(
        "Zone that is changed; the one that the name server has for the name when empty.",
        default="",
        example="example.org",
    )
    key_name: str = key(
        "Name of the key that signs updates (TSIG, RFC 8945).", default="", example="mailserver.example.org"
    )
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = key(
        "What it signs with.", default="hmac-sha256"
    )
    key_file: Path | None = key(
        "File with that key, in base64, on its first line; read by who reads the keys of certificates.",
        default=None,
        example="/etc/mailserver/tsig",
        hidden=True,
    )
    wait: Seconds = key(
        "Seconds between the change and the authority's look, until all name servers of the zone have it.", default=10.0
    )


@frozen
class Acme:
    """[acme]"""

    terms_of_service: Literal["agreed"] = key(
        'That you have read the authority\'s terms, which it publishes, and agree: write "agreed".', example="agreed"
    )
    directory: str = key(
        "Address of the authority's directory.",
        default="https://acme-v02.api.letsencrypt.org/directory",
        example="https://acme-staging-v02.api.letsencrypt.org/directory",
    )
    contact: tuple[str, ...] = key(
        "Where the authority may write to.", default=(), example=["mailto:postmaster@example.org"]
    )
    challenge: Literal["http-01", "dns-01"] = key(
        "How a host is proved to be ours: by a page on port 80, or by a TXT record, as wildcards always are.",
        default="http-01",
    )
    webroot: Path | None = key(
        "Directory of another web server on port 80, where the service's user may write; without it our own listener of "
        "protocol http answers.",
        default=None,
        example="/var/www/html",
    )
    key_type: Literal["ecdsa", "rsa"] = key("Keys of the certificates: P-256, or RSA of 2048 bits.", default="ecdsa")
    ca_file: Path | None = key(
        "Authorities that may have signed the certificate of the directory itself; the public ones when absent.",
        default=None,
        example="/etc/mailserver/acme-ca.pem",
    )
    eab_key_id: str = key(
        "Key identifier of an account at the authority, if it demands one (RFC 8555 7.3.4).",
        default="",
        example="kid-1",
    )
    eab_key_file: Path | None = key(
        "File with that account's MAC key, in base64url, on its first line; read by who reads the keys of certificates.",
        default=None,
        example="/etc/mailserver/acme-eab",
        hidden=True,
    )
    dns: AcmeDns | None = key("How TXT records are made; needed for dns-01.", default=None)
    thumbprint: str = attrs.field(default="", kw_only=True, eq=False, metadata={"no_key": True})
    """Of the account's key (RFC 7638), set by who reads it: what a page on port 80 answers with. It is no key."""


@frozen
class MtaSts:
    """[domain.mta_sts]"""

    mode: Literal["enforce", "testing", "none"] = key(
        "What senders do where no host of the policy can be reached over TLS with a good certificate: "
        "send nothing, only report it, or no policy any more.",
        default="testing",
    )
    max_age: Count = key("Seconds for which senders keep the policy; at most 31557600.", default=Count(604800))


@frozen
class Domain:
    """[[domain]]"""

    name: HostName = key("Mail domain: what stands behind the @.", example="example.org")
    hosts: tuple[HostPattern, ...] = key(
        "Host names that clients of this domain connect to; *.name covers one label.", example=["mail.example.org"]
    )
    certificate: Path | None = key(
        "PEM file: the certificate, then its chain. Without it and key, what `mailserver cert add` has added is served.",
        default=None,
        example="/etc/mailserver/certs/mail.example.org.pem",
    )
    key: Path | None = key(
        "PEM file of the private key.",
        default=None,
        example="/etc/mailserver/certs/mail.example.org.key",
        hidden=True,
    )
    second_certificate: Path | None = _key(
        "A second one with a key of the other type, RSA or ECDSA: each client gets what it can use.",
        default=None,
        example="/etc/mailserver/certs/mail.example.org-rsa.pem",
    )
    second_key: Path | None = _key(
        "The key of second_certificate.",
        default=None,
        example="/etc/mailserver/certs/mail.example.org-rsa.key",
        hidden=True,
    )
    key_password_file: Path | None = _key(
        "File with the password of both keys on its first line.",
        default=None,
        example="/etc/mailserver/certs/password",
        hidden=True,
    )
    key_password_command: tuple[str, ...] = _key(
        "Program that prints the password of both keys, with its arguments; run without a shell, for at most 10 seconds.",
        default=(),
        example=["/usr/bin/pass", "show", "mail/key"],
        hidden=True,
    )
    minimum_version: TlsVersion | None = _key(
        "Oldest TLS version accepted for these hosts; that of [tls] when absent, and never below it.",
        default=None,
        example="1.3",
    )
    ciphers: str | None = _key(
        "TLS 1.2 cipher suites for these hosts; those of [tls] when absent.",
        default=None,
        example="ECDHE+AESGCM:!aNULL",
    )
    client_certificates: ClientCertificates = _key(
        "Certificates of clients: not asked for, asked for (one that is not verified counts as none), or required.",
        default="none",
    )
    client_ca: Path | None = _key(
        "PEM file of the authorities that sign clients' certificates; each is trusted by itself.",
        default=None,
        example="/etc/mailserver/clients-ca.pem",
    )
    client_crl: Path | None = _key(
        "File of revocation lists, one of each authority, PEM or one in DER; a new one counts within seconds.",
        default=None,
        example="/etc/mailserver/clients.crl",
    )
    client_user: ClientUser = _key(
        "Field of a client's certificate that holds the user name: the subject alternative name rfc822Name, or an "
        "attribute of the subject.",
        default="rfc822Name",
    )
    acme: bool = _key(
        "Get these hosts' certificates from the authority of [acme], one for each host, and renew them.", default=False
    )
    mx: tuple[HostName, ...] = _key(
        "Hosts that take the domain's mail from elsewhere, the preferred first: what `mailserver dns` prints and the "
        "MTA-STS policy says.",
        default=(),
        example=["mx.example.org"],
    )
    sites: tuple[Site, ...] = ()
    """[[domain.site]]"""
    mta_sts: MtaSts | None = _key("The MTA-STS policy (RFC 8461); none when absent.", default=None)
    number: int = position()
    site: int = position()
    """Of one that stands for a [[domain.site]], that table's place among the sites; else 0."""

    @property
    def place(self) -> str:
        """The table in a Problem: "[domain 2]"."""
        return f"[domain {self.number}.site {self.site}]" if self.site else f"[domain {self.number}]"

    @property
    def certified(self) -> tuple[Domain, ...]:
        """Itself, and for each site one of the same name with all that the site says."""
        return (self, *(self._of_site(site) for site in self.sites))

    def _of_site(self, site: Site) -> Domain:
        said = {each.name: getattr(site, each.name) for each in attrs.fields(Site) if each.name != "number"}
        return Domain(self.name, number=self.number, site=site.number, **said)


@frozen
class Listener:
    """[[listener]]"""

    protocol: Literal["imap", "imaps", "pop3", "pop3s", "submission", "submissions", "lmtp", "http", "https"] = key(
        "What is served; a final s is implicit TLS (RFC 8314), without it STARTTLS, and for http none.", example="imaps"
    )
    port: Port | None = key("TCP port; the protocol's own when absent.", default=None, example=993)
    addresses: tuple[Address, ...] = key(
        "IP addresses to bind; all, or loopback for lmtp, when empty.", default=(), example=["192.0.2.1", "2001:db8::1"]
    )
    socket: Path | None = key("Unix socket instead of a port.", default=None, example="/run/mailserver/lmtp")
    allow_cleartext: bool = key("Accept passwords without TLS here; only on loopback and Unix sockets.", default=False)
    require_tls: bool = key("lmtp: nothing but STARTTLS before TLS.", default=False)
    sniff_delay: Hold = key(
        "Seconds, at most 5, for which the greeting of a port with STARTTLS is held back, so that clients set to SSL/TLS "
        "are noticed in time; 0.1 is enough for most. docs/tls.md tells more.",
        default=0.0,
        example=0.1,
    )
    early_tls: EarlyTls = key(
        "What such a client gets in that time: the same as at a port of implicit TLS, or a TLS alert.",
        default="serve",
        example="refuse",
    )
    proxy_from: tuple[Network, ...] = key(
        "Networks whose connections begin with a PROXY protocol header.", default=(), example=["192.0.2.0/24"]
    )
    minimum_version: TlsVersion | None = key(
        "Oldest TLS version accepted here; that of [tls] when absent.", default=None, example="1.3"
    )
    maximum_version: TlsVersion | None = key(
        "Newest TLS version accepted here; that of [tls] when absent.", default=None, example="1.2"
    )
    ciphersuites: str | None = key(
        "TLS 1.3 cipher suites here; those of [tls] when absent.", default=None, example="TLS_AES_256_GCM_SHA384"
    )
    groups: str | None = key(
        "Key exchange groups here; those of [tls] when absent.", default=None, example="P-256:P-384"
    )
    cipher_order: CipherOrder | None = key(
        "Whose order of cipher suites counts here; that of [tls] when absent.", default=None, example="server"
    )
    tickets: bool | None = key(
        "Whether clients resume sessions here; as in [tls] when absent.", default=None, example=False
    )
    number: int = position()

    @property
    def place(self) -> str:
        """The table in a Problem: "[listener 2]"."""
        return f"[listener {self.number}]"

    @property
    def tcp_port(self) -> int:
        """The port bound, where `socket` is None."""
        return self.port if self.port is not None else PORTS[self.protocol]

    @property
    def bind_addresses(self) -> tuple[str, ...]:
        """The addresses bound; none where `socket` is given."""
        if self.socket is not None:
            return ()
        if self.addresses:
            return self.addresses
        return ("127.0.0.1", "::1") if self.protocol == "lmtp" else ("0.0.0.0", "::")  # noqa: S104 - the default

    @property
    def implicit_tls(self) -> bool:
        """Does a connection begin with the TLS handshake?"""
        return self.protocol in IMPLICIT_TLS

    @property
    def starttls(self) -> bool:
        """Can a connection that begins in clear text be secured?"""
        return not self.implicit_tls and self.protocol != "http"

    @property
    def family(self) -> str:
        """The protocol without its TLS kind: "imap" of "imaps"."""
        return self.protocol.removesuffix("s") if self.implicit_tls else self.protocol


@frozen
class Mail:
    """[mail]"""

    root: Path = key("Directory of all mail.", example="/var/mail/domains")
    location: str = key(
        "Maildir of an account: a template of {root}, {user}, {local}, {domain}, {home}.",
        default="{root}/{domain}/{local}/Maildir",
    )
    separator: Literal["/", "."] = key("Hierarchy separator that IMAP clients see: / or .", default="/")
    prefix: str = key("Namespace prefix that IMAP clients see, such as INBOX.", default="")
    utf8_names: bool = key("Folder names on disk are UTF-8 instead of modified UTF-7.", default=False)
    special_use: dict[str, str] = key(
        "Folder names of a new account by special use (RFC 6154).",
        default=Factory(
            lambda: {"Drafts": "Drafts", "Sent": "Sent", "Junk": "Junk", "Trash": "Trash", "Archive": "Archive"}
        ),
    )
    search_index: bool = key(
        "Index the text of mailboxes in which somebody has searched for text, so that searches open few messages.",
        default=True,
    )
    max_message_size: Size = key("Largest message accepted, octets; at least 65536.", default=64 * 1024 * 1024)


@frozen
class Auth:
    """[auth]"""

    backends: tuple[str, ...] = key(
        "Back ends in the order they are asked, NAME:ARGUMENT.", example=["file:/etc/mailserver/users"], hidden=True
    )
    default_domain: OptionalHostName = key(
        "Domain of names without one, after the name as it is and the SNI name's domain.",
        default="",
        example="example.org",
    )
    mechanisms: tuple[
        Literal[
            "EXTERNAL",
            "SCRAM-SHA-256-PLUS",
            "SCRAM-SHA-256",
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-1",
            "PLAIN",
            "LOGIN",
        ],
        ...,
    ] = key(
        "SASL mechanisms, each offered where it can succeed. `mailserver user` stores keys for the SCRAM ones here. "
        "Some clients choose a -PLUS and then cannot do it.",
        default=("EXTERNAL", "SCRAM-SHA-256", "PLAIN", "LOGIN"),
    )
    scram_for: Literal["all", "some"] = key(
        "Offer SCRAM once all users have keys for it, or once some have: some clients try nothing else then.",
        default="all",
    )
    hash_processes: Count = key("Processes that check password hashes.", default=2)
    hash_queue: Count = key("Password checks that may wait; more are told to try again.", default=64)
    failure_delay: Seconds = key(
        "Seconds that the first failure of a user from a network costs; each doubles.", default=1.0
    )
    failure_delay_max: Seconds = key("Longest delay, seconds.", default=15.0)


@frozen
class Imap:
    """[imap]"""

    literal: Literal["plus", "minus"] = key("Offer LITERAL+ or LITERAL- (RFC 7888).", default="plus")
    idle_notice: Seconds = key("Seconds between `* OK Still here` in IDLE.", default=120.0)
    timeout: Seconds = key(
        "Seconds without a command before the session ends; at least 1800 (RFC 3501 5.4).", default=1860.0
    )
    max_line: Size = key("Longest command line, octets, literals apart; at least 8192 (RFC 7162 4).", default=65536)


@frozen
class Pop3:
    """[pop3]"""

    uidl_format: str = key(
        "UIDL: %v UIDVALIDITY, %u UID, with Dovecot's width and X for hexadecimal.", default="%08Xu%08Xv"
    )
    lock: Literal["none", "session"] = key(
        "Whether a session locks out other POP3 sessions of the user.", default="none"
    )
    timeout: Seconds = key("Seconds without a command; at least 600 (RFC 1939).", default=600.0)


@frozen
class Relay:
    """[submission.relay]"""

    host: NextHop = key("The next hop: a host name or an IP address.", example="smtp.example.net")
    port: Port = key("Its port.", default=587)
    tls: Literal["starttls", "implicit", "none"] = key(
        "How its connection is secured; none only on loopback.", default="starttls"
    )
    ca_file: Path | None = key(
        "Authorities that may have signed its certificate; the system's when absent.",
        default=None,
        example="/etc/mailserver/relay-ca.pem",
    )
    verification: Literal["required", "none"] = key(
        "Whether its certificate must be valid for its name; none lets anybody between here and there read the mail and "
        "the password.",
        default="required",
    )
    minimum_version: TlsVersion = key("Oldest TLS version spoken to it.", default="1.2")
    certificate: Path | None = key(
        "PEM file of our own certificate, and its chain, for a hop that asks for one; read by the service's user.",
        default=None,
        example="/etc/mailserver/relay.pem",
    )
    key: Path | None = key(
        "PEM file of its key; read by the service's user.",
        default=None,
        example="/etc/mailserver/relay.key",
        hidden=True,
    )
    key_password_file: Path | None = _key(
        "File with the key's password on its first line; read by the service's user.",
        default=None,
        example="/etc/mailserver/relay-key-password",
        hidden=True,
    )
    user: str = _key("Name to log in with; no login when empty.", default="", example="example.org")
    password_file: Path | None = _key(
        "File with the password on its first line.",
        default=None,
        example="/etc/mailserver/relay-password",
        hidden=True,
    )
    timeout: Seconds = _key("Seconds for each of its answers.", default=300.0)


@frozen
class Submission:
    """[submission]"""

    max_recipients: Count = key("Recipients of one message; at least 100 (RFC 5321 4.5.3.1.8).", default=1000)
    timeout: Seconds = key("Seconds without a command; at least 300 (RFC 5321 4.5.3.2.7).", default=300.0)
    relay: Relay | None = key("Where mail for other domains is handed to.", default=None)


@frozen
class Lmtp:
    """[lmtp]"""

    detail_separator: str = key("What separates the detail of an address (user+detail); empty for none.", default="+")
    max_recipients: Count = key("Recipients of one message; at least 100 (RFC 5321 4.5.3.1.8).", default=1000)
    timeout: Seconds = key("Seconds without a command; at least 300 (RFC 5321 4.5.3.2.7).", default=300.0)


@frozen
class Http:
    """[http]"""

    metrics_from: tuple[Network, ...] = key(
        "Networks that may read /metrics and /health.",
        default=(Network("127.0.0.0/8"), Network("::1/128")),
        example=["127.0.0.0/8", "::1/128", "192.0.2.0/24"],
    )


@frozen
class Limits:
    """[limits]"""

    login_time: Seconds = key("Seconds until a connection must have logged in.", default=180.0)
    unauthenticated_per_address: Count = key("Connections of one address (IPv6: /64) not yet logged in.", default=40)
    sessions_per_user: Count = key("Sessions of one user from one address.", default=20)
    connections: Count = key("Connections in all.", default=10000)
    mailboxes_per_user: Count = key(
        "Mailboxes that a user may have, and names that it may subscribe to; at least 100.", default=10_000
    )
    messages_per_mailbox: Count = key("Messages that one mailbox may hold.", default=5_000_000)
    write_timeout: Seconds = key("Seconds that a client may take nothing of an answer.", default=300.0)
    transfer_timeout: Seconds = key("Seconds without progress inside a command, literal or message.", default=120.0)
    worker_memory: Size = key(
        "Octets of memory after which a worker is replaced; its sessions go on until they end.", default=2 << 30
    )


@frozen
class Cache:
    """[cache]"""

    accounts: Count = key("Accounts that stay open without a session.", default=64)
    messages: Count = key(
        "Messages whose UIDs, flags and sizes stay in memory while no session has their mailbox open, "
        "about 28 octets each.",
        default=2_000_000,
    )
    indexes: Count = key(
        "Accounts, in use or not, whose index stays open: three files and some memory each.", default=256
    )
    recent: Size = key(
        "Octets of small messages, and of envelopes and structures, that were just read and stay in memory in each worker, "
        "to be told again without reading.",
        default=16 * 1024 * 1024,
    )
    files: Count = key(
        "Files of larger messages that each worker keeps open for a minute after they were read.", default=64
    )
    commands: Count = key(
        "Command texts of IMAP whose meaning each worker remembers, as clients send the same ones again.", default=1024
    )


@frozen
class Ledger:
    """[ledger]"""

    enabled: bool = key(
        "Keep which clients each account uses and how they connect, for `mailserver clients` and `mailserver tls impact`.",
        default=True,
    )
    keep_days: Count = key("Days after which a client that was not seen again is forgotten.", default=Count(180))
    entries_per_account: Count = key("Entries of one account; the oldest go.", default=Count(50))
    entries: Count = key("Entries in all; the oldest go.", default=Count(100_000))


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
    http: Http = Factory(Http)
    acme: Acme | None = None
    limits: Limits = Factory(Limits)
    cache: Cache = Factory(Cache)
    ledger: Ledger = Factory(Ledger)
    source: Path = Path()
    """The file it came from."""

    @property
    def certified(self) -> tuple[Domain, ...]:
        """All that have a certificate: the domains, each with its sites behind it."""
        return tuple(each for domain in self.domains for each in domain.certified)

    @property
    def acme_hosts(self) -> tuple[str, ...]:
        """Hosts whose certificates come from the authority of [acme]."""
        if self.acme is None:
            return ()
        return tuple(host for each in self.certified if each.acme for host in each.hosts)


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
    warning: bool = False
    """The server starts all the same."""

    def __str__(self) -> str:
        where = f"{self.file} {self.place}".rstrip()
        value = f" = {self.value}" if self.value else ""
        near = f"; did you mean {self.near!r}?" if self.near else ""
        kind = "warning: " if self.warning else ""
        line = f"{where}{value}: {kind}{self.reason}{near}"
        # Parts of it are the file's: nothing of them may move a terminal's cursor or turn its text around.
        return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)
