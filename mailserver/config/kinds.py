"""What one value of the configuration may be, by name: a type for each kind, whose hook is in `values`."""

from __future__ import annotations

from typing import Final, Literal, NewType, TypeAlias

Port = NewType("Port", int)
"""TCP port, 1 to 65535."""

Count = NewType("Count", int)
"""A number of things, at least 1."""

Size = NewType("Size", int)
"""Octets, at least 1."""

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
"""Rights of a file as chmod takes them, in octal digits: "0660"."""

Workers: TypeAlias = Literal["auto"] | int
"""A number of processes, or as many as there are processors."""

TransportKind: TypeAlias = Literal["auto", "stock"]
"""Whose transports serve TCP connections."""

TlsVersion: TypeAlias = Literal["1.2", "1.3"]

Preset: TypeAlias = Literal["modern", "old-devices"]
"""What [tls] says where it says nothing else; `tls.context.settings` has the values."""

Ssl: TypeAlias = Literal["no", "yes", "required"]
"""Dovecot's ssl: whether TLS can be started, and what of a login may come without it."""

Cleartext: TypeAlias = Literal["never", "same host", "always"]
"""From whom passwords are taken without TLS; from the same host is from the address that is connected to."""

EarlyTls: TypeAlias = Literal["serve", "refuse"]
"""What becomes of a ClientHello at a port of STARTTLS that comes before the greeting."""

CipherOrder: TypeAlias = Literal["client", "server"]
"""Whose order of cipher suites counts."""

ClientCertificates: TypeAlias = Literal["none", "asked", "required"]
"""Whether clients show certificates."""

ClientUser: TypeAlias = Literal["rfc822Name", "emailAddress", "commonName", "userId", "any"]
"""Where a client certificate has its user: a subject alternative name (RFC 5280 4.2.1.6), or an attribute of the
subject (RFC 5280 4.1.2.6, RFC 4519 2.3 and 2.39). With "any" it names nobody, and does for every user."""

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
"""Port of each protocol where the listener names none."""

IMPLICIT_TLS: Final = frozenset({"imaps", "pop3s", "submissions", "https"})
"""Protocols that begin with the TLS handshake (RFC 8314 3; RFC 9110 4.2.2)."""
