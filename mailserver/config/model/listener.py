"""Ports and sockets."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal

from attrs import frozen

from mailserver.config.kinds import (
    IMPLICIT_TLS,
    PORTS,
    Address,
    CipherOrder,
    Cleartext,
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

    protocol: Literal["imap", "imaps", "pop3", "pop3s", "submission", "submissions", "lmtp", "http", "https"] = setting(
        "What is served; a final s is implicit TLS (RFC 8314), without it STARTTLS, and for http none.", example="imaps"
    )
    port: Port | None = setting("TCP port; the protocol's own when absent.", default=None, example=993)
    addresses: tuple[Address, ...] = setting(
        "IP addresses to bind; all, or loopback for lmtp, when empty.", default=(), example=["192.0.2.1", "2001:db8::1"]
    )
    socket: Path | None = setting("Unix socket instead of a port.", default=None, example="/run/mailserver/lmtp")
    socket_mode: FileMode = setting(
        "Rights of the Unix socket, as chmod takes them: who may write may connect.", default=FileMode("0660")
    )
    socket_owner: str = setting(
        "System user to whom the Unix socket belongs; the user of [server] when empty.", default="", example="postfix"
    )
    socket_group: str = setting(
        "System group to which it belongs, such as that of the mail transfer agent; the group of [server] when empty.",
        default="",
        example="postfix",
    )
    trusted_authentication_results: bool = setting(
        "lmtp: keep Authentication-Results and Received-SPF in the name of this server or of a domain here, as the transfer "
        "agent takes out those that strangers wrote. Else all of them are taken out here, the transfer agent's, too.",
        default=False,
    )
    allow_cleartext: bool = setting(
        "Accept passwords without TLS here; only on loopback and Unix sockets.", default=False
    )
    ssl: Ssl | None = setting(
        "What of a login may come without TLS, as Dovecot means its ssl: with required nothing, with yes and no mechanisms "
        "that send no password; passwords only from the address that is connected to, as with 127.0.0.1. With no there is no "
        "STARTTLS. When absent nothing comes without TLS, but for allow_cleartext.",
        default=None,
        example="required",
    )
    auth_allow_cleartext: bool = setting(
        "As Dovecot's: accept passwords without TLS here, from anywhere; beside ssl, yes or no.", default=False
    )
    require_tls: bool = setting("lmtp: nothing but STARTTLS before TLS.", default=False)
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
        "Host name whose certificate is served here to clients that send no name, and of whose domain their names without "
        "one are; that of [tls] when absent.",
        default=None,
        example="mail.example.org",
    )
    minimum_version: TlsVersion | None = setting(
        "Oldest TLS version accepted here; that of [tls] when absent.", default=None, example="1.3"
    )
    maximum_version: TlsVersion | None = setting(
        "Newest TLS version accepted here; that of [tls] when absent.", default=None, example="1.2"
    )
    ciphersuites: str | None = setting(
        "TLS 1.3 cipher suites here; those of [tls] when absent.", default=None, example="TLS_AES_256_GCM_SHA384"
    )
    groups: str | None = setting(
        "Key exchange groups here; those of [tls] when absent.", default=None, example="P-256:P-384"
    )
    cipher_order: CipherOrder | None = setting(
        "Whose order of cipher suites counts here; that of [tls] when absent.", default=None, example="server"
    )
    tickets: bool | None = setting(
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
        return not self.implicit_tls and self.protocol != "http" and self.ssl != "no"

    @property
    def cleartext(self) -> Cleartext:
        """From whom passwords are taken without TLS."""
        if self.implicit_tls:
            return "never"
        if self.ssl is None:
            return "always" if self.allow_cleartext else "never"
        if self.auth_allow_cleartext:
            return "always"
        # A proxy's address says nothing of the client's.
        return "never" if self.proxy_from else "same host"

    @property
    def proofs_in_clear(self) -> bool:
        """Are mechanisms taken without TLS that send no password?"""
        return not self.implicit_tls and self.ssl in ("yes", "no")

    @property
    def family(self) -> str:
        """The protocol without its TLS kind: "imap" of "imaps"."""
        return self.protocol.removesuffix("s") if self.implicit_tls else self.protocol

    @property
    def is_loopback(self) -> bool:
        """Can only programs of this machine reach it?"""
        return all(ipaddress.ip_address(address).is_loopback for address in self.bind_addresses)
