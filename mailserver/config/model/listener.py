"""Ports and sockets."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from attrs import frozen

from mailserver.config.kinds import (
    IMPLICIT_TLS,
    PORTS,
    SOCKET_ONLY,
    Address,
    CipherOrder,
    Cleartext,
    ClientAddress,
    EarlyTls,
    FileMode,
    GreetingDelay,
    HostName,
    Network,
    Port,
    Ssl,
    TlsVersion,
)
from mailserver.config.model.keys import position, setting


@frozen
class Listener:
    """[[listener]]"""

    protocol: Literal[
        "imap", "imaps", "pop3", "pop3s", "submission", "submissions", "lmtp", "auth", "lookup", "http", "https"
    ] = setting(
        "Protocol. With a final s it has implicit TLS (RFC 8314), without it STARTTLS; http, auth and lookup have "
        "none. By auth, at a Unix socket, other servers have passwords of users checked here, in Dovecot's protocol; see "
        "docs/authentication.md. By lookup, too, they look up addresses, domains and senders, in Postfix's socketmap protocol; see docs/accounts.md.",
        example="imaps",
    )
    port: Port | None = setting("TCP port. When absent, the protocol's default.", default=None, example=993)
    addresses: tuple[Address, ...] = setting(
        "IP addresses to bind. When empty, all; for lmtp, loopback.", default=(), example=["192.0.2.1", "2001:db8::1"]
    )
    socket: Path | None = setting("Unix socket instead of a port.", default=None, example="/run/mailserver/lmtp")
    socket_mode: FileMode = setting(
        "Mode of the Unix socket, as for chmod. Users with write permission can connect.", default=FileMode("0660")
    )
    socket_owner: str = setting(
        "Owner of the Unix socket. When empty, the user of [server].", default="", example="postfix"
    )
    socket_group: str = setting(
        "Group of the Unix socket, such as the mail transfer agent's. When empty, the group of [server].",
        default="",
        example="postfix",
    )
    trusted_authentication_results: bool = setting(
        "lmtp: keep Authentication-Results and Received-SPF fields in the name of this server or a local domain, as the mail "
        "transfer agent removes forged ones. When false, this server removes all of them, the agent's own, too.",
        default=False,
    )
    client_address: ClientAddress = setting(
        "Address of the client (rip=) in each request at a socket of auth. With optional, a request without one counts as a client of "
        "this machine, of the network local: wrong passwords delay all of those together, and none of them is ever banned. With "
        "required it is refused.",
        default="optional",
        example="required",
    )
    allow_cleartext: bool = setting(
        "Accept passwords without TLS here; only on loopback and Unix sockets.", default=False
    )
    ssl: Ssl | None = setting(
        "Logins without TLS, with the meaning of Dovecot's ssl. With required there are none. With yes and no the server "
        "accepts mechanisms that send no password, and passwords only if client and server have the same address, such as "
        "127.0.0.1. With no there is no STARTTLS. When absent, logins need TLS, except by allow_cleartext.",
        default=None,
        example="required",
    )
    auth_allow_cleartext: bool = setting(
        "As in Dovecot: accept passwords without TLS here, from anywhere. Needs ssl, yes or no.", default=False
    )
    require_tls: bool = setting("lmtp: refuse everything before STARTTLS.", default=False)
    greeting_delay: GreetingDelay = setting(
        "Seconds, at most 5, by which the greeting of a port with STARTTLS is delayed, to detect clients that are set to "
        "SSL/TLS; 0.1 is enough for most. See docs/tls.md.",
        default=0.0,
        example=0.1,
        formerly="sniff_delay",
    )
    early_tls: EarlyTls = setting(
        "Answer to a ClientHello within greeting_delay: serve as at a port of implicit TLS, or refuse with a TLS alert.",
        default="serve",
        example="refuse",
    )
    proxy_from: tuple[Network, ...] = setting(
        "Networks whose connections begin with a PROXY protocol header.", default=(), example=["192.0.2.0/24"]
    )
    default: HostName | None = setting(
        "Host name whose certificate is served here to clients without SNI. Its domain completes their user names without a "
        "domain. When absent, that of [tls].",
        default=None,
        example="mail.example.org",
    )
    minimum_version: TlsVersion | None = setting(
        "Oldest TLS version accepted here. When absent, that of [tls].", default=None, example="1.3"
    )
    maximum_version: TlsVersion | None = setting(
        "Newest TLS version accepted here. When absent, that of [tls].", default=None, example="1.2"
    )
    ciphersuites: str | None = setting(
        "TLS 1.3 cipher suites here. When absent, those of [tls].", default=None, example="TLS_AES_256_GCM_SHA384"
    )
    groups: str | None = setting(
        "Key exchange groups here. When absent, those of [tls].", default=None, example="P-256:P-384"
    )
    cipher_order: CipherOrder | None = setting(
        "Side whose preference of cipher suites is used here. When absent, that of [tls].",
        default=None,
        example="server",
    )
    tickets: bool | None = setting(
        "Let clients resume sessions here by tickets. When absent, as in [tls].", default=None, example=False
    )
    number: int = position()

    @property
    def place(self) -> str:
        """The table in a Problem: "[listener 2]"."""
        return f"[listener {self.number}]"

    @property
    def tcp_port(self) -> int:
        """The port bound, without `socket`."""
        return self.port if self.port is not None else PORTS.get(self.protocol, 0)

    @property
    def bind_addresses(self) -> tuple[str, ...]:
        """The addresses bound; none with `socket`."""
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
        has_tls = self.protocol != "http" and self.protocol not in SOCKET_ONLY
        return has_tls and not self.implicit_tls and self.ssl != "no"

    @property
    def cleartext(self) -> Cleartext:
        """Clients whose passwords are accepted without TLS."""
        if self.implicit_tls:
            return "never"
        if self.ssl is None:
            return "always" if self.allow_cleartext else "never"
        if self.auth_allow_cleartext:
            return "always"
        # A proxy's address is not the client's.
        return "never" if self.proxy_from else "same host"

    @property
    def nonplaintext_without_tls(self) -> bool:
        """Are mechanisms accepted without TLS that send no password?"""
        return not self.implicit_tls and self.ssl in ("yes", "no")

    @property
    def family(self) -> str:
        """The protocol without its TLS kind: "imap" of "imaps"."""
        return self.protocol.removesuffix("s") if self.implicit_tls else self.protocol

    @property
    def is_loopback(self) -> bool:
        """Can only programs on this machine reach it?"""
        return all(ipaddress.ip_address(address).is_loopback for address in self.bind_addresses)
