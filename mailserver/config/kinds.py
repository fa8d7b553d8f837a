"""Types of single values of the configuration; `values` has a structure hook for each."""

from __future__ import annotations

from typing import Final, Literal, NewType, TypeAlias

Port = NewType("Port", int)
"""TCP port, 1 to 65535."""

Count = NewType("Count", int)
"""A number, at least 1."""

Size = NewType("Size", int)
"""Octets, at least 1."""

Limit = NewType("Limit", int)
"""A number, or 0 for no limit."""

SizeLimit = NewType("SizeLimit", int)
"""Octets, or 0 for no limit; also with Dovecot's units, as text: "10G"."""

Seconds = NewType("Seconds", float)
"""A time, above 0 and finite; whole or decimal."""

GreetingDelay = NewType("GreetingDelay", float)
"""A time from 0 to 5 seconds."""

HostName = NewType("HostName", str)
"""A host name or mail domain of letters, digits and hyphens (RFC 1123 2.1); kept in lower case."""

HostPattern = NewType("HostPattern", str)
"""A HostName, or `*.` and a HostName, which stands for one label (RFC 6125 6.4.3)."""

OptionalHostName = NewType("OptionalHostName", str)
"""A HostName, or empty for none."""

NextHop = NewType("NextHop", str)
"""A HostName, or an IP address."""

HttpUrl = NewType("HttpUrl", str)
"""An http URL, or empty."""

Address = NewType("Address", str)
"""IPv4 or IPv6 address, in its shortest form."""

Network = NewType("Network", str)
"""IPv4 or IPv6 address with a prefix length, or one address."""

FileMode = NewType("FileMode", str)
"""A file mode in octal digits, as for chmod: "0660"."""

Workers: TypeAlias = Literal["auto"] | int
"""A number of processes; "auto" for the number of processors."""

TransportKind: TypeAlias = Literal["auto", "stock"]
"""Whose transports serve TCP connections."""

TlsVersion: TypeAlias = Literal["1.2", "1.3"]

Preset: TypeAlias = Literal["modern", "old-devices"]
"""Defaults of [tls]; `tls.context.settings` has the values."""

Ssl: TypeAlias = Literal["no", "yes", "required"]
"""Dovecot's ssl: whether STARTTLS is offered, and which logins are allowed without TLS."""

Cleartext: TypeAlias = Literal["never", "same host", "always"]
"""Clients whose passwords are accepted without TLS. "same host": client and server have the same address."""

EarlyTls: TypeAlias = Literal["serve", "refuse"]
"""The answer to a ClientHello before the greeting, at a port with STARTTLS."""

ClientAddress: TypeAlias = Literal["optional", "required"]
"""Whether another server that has its users checked here must name the address of its client."""

CipherOrder: TypeAlias = Literal["client", "server"]
"""The side whose preference of cipher suites is used."""

ClientCertificates: TypeAlias = Literal["none", "asked", "required"]
"""Whether client certificates are requested."""

ClientUser: TypeAlias = Literal["rfc822Name", "emailAddress", "commonName", "userId", "any"]
"""The field of a client certificate with the user name: a subject alternative name (RFC 5280 4.2.1.6), or an attribute of the
subject (RFC 5280 4.1.2.6, RFC 4519 2.3 and 2.39). With "any" the certificate names no user and is valid for all."""

PORTS: Final = {
    "imap": 143,
    "imaps": 993,
    "pop3": 110,
    "pop3s": 995,
    "submission": 587,
    "submissions": 465,
    "lmtp": 24,
    "http": 80,
    "https": 443,
}
"""Default port of each protocol."""

IMPLICIT_TLS: Final = frozenset({"imaps", "pop3s", "submissions", "https"})
"""Protocols that begin with the TLS handshake (RFC 8314 3; RFC 9110 4.2.2)."""

SOCKET_ONLY: Final = frozenset({"auth", "lookup"})
"""Protocols of other servers on this machine, at Unix sockets alone: at a port, every local user could ask."""
