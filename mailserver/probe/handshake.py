"""A TLS client that reports the server's handshake and verifies nothing."""

from __future__ import annotations

import functools
import socket
import time
from typing import Final

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL

from mailserver.probe.place import PATIENCE, NotReached, Place, start_tls

VERSIONS: Final = {
    "1.0": SSL.TLS1_VERSION,
    "1.1": SSL.TLS1_1_VERSION,
    "1.2": SSL.TLS1_2_VERSION,
    "1.3": SSL.TLS1_3_VERSION,
}
"""The oldest first."""

_OLD: Final = frozenset({"1.0", "1.1"})


@frozen
class Shown:
    """The result of one handshake."""

    chain: tuple[x509.Certificate, ...] = ()
    """The chain as sent, the server's own certificate first."""
    cipher: str = ""
    alpn: str = ""
    fault: str = ""
    """Why the handshake failed; empty if it did not."""


@functools.cache
def _context(version: str | None, alpn: tuple[bytes, ...], ciphers: bytes | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(VERSIONS[version])
        context.set_max_proto_version(VERSIONS[version])
    if version in _OLD:
        # The client's library must not refuse an old version that the server still accepts.
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
    if ciphers is not None:
        context.set_cipher_list(ciphers)
    if alpn:
        context.set_alpn_protos(list(alpn))
    return context


def ask(
    place: Place,
    name: str | None,
    version: str | None = None,
    alpn: tuple[bytes, ...] = (),
    *,
    ciphers: bytes | None = None,
) -> Shown:
    """Connect, start TLS and shake hands; `ciphers` are for TLS 1.2. Raises: NotReached, NotOffered."""
    with place.connected() as plain:
        if not place.listener.implicit_tls:
            start_tls(plain, place.listener.family)
        return shake_hands(plain, name, version, alpn, ciphers=ciphers)[1]


def shake_hands(
    plain: socket.socket,
    name: str | None,
    version: str | None = None,
    alpn: tuple[bytes, ...] = (),
    *,
    ciphers: bytes | None = None,
) -> tuple[SSL.Connection, Shown]:
    """Shake hands on a connection. Raises: NotReached."""
    connection = SSL.Connection(_context(version, alpn, ciphers), None)
    connection.set_connect_state()
    if name is not None:
        connection.set_tlsext_host_name(name.encode("ascii"))
    end = time.monotonic() + PATIENCE
    fault = ""
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            if fault := exchange(plain, connection, end):
                break
        except SSL.Error as error:
            fault = reason(error)
            flush(plain, connection)
            break
        else:
            flush(plain, connection)
            break
    try:
        chain = tuple(connection.get_peer_cert_chain(as_cryptography=True) or ())
    except ValueError as error:
        return connection, Shown(fault=f"its certificate cannot be decoded: {error}")
    alpn_name = connection.get_alpn_proto_negotiated().decode("ascii", "replace") if not fault else ""
    return connection, Shown(chain, connection.get_cipher_name() or "", alpn_name, fault)


def exchange(plain: socket.socket, connection: SSL.Connection, end: float) -> str:
    """Send pending octets and read once; return what prevented that. Raises: NotReached after a timeout."""
    try:
        flush(plain, connection)
        plain.settimeout(max(0.01, end - time.monotonic()))
        piece = plain.recv(65536)
    except TimeoutError as error:
        raise NotReached("no answer in the handshake") from error
    except OSError as error:
        return f"the connection ends: {error.strerror or error}"
    if not piece:
        return "the connection ends"
    connection.bio_write(piece)
    return ""


def flush(plain: socket.socket, connection: SSL.Connection) -> None:
    """Send pending octets. A closed connection shows at the next read."""
    try:
        while True:
            plain.sendall(connection.bio_read(65536))
    except (SSL.WantReadError, SSL.ZeroReturnError, OSError):
        return


def reason(error: SSL.Error) -> str:
    """Return OpenSSL's text; it names an alert of the server."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(dict.fromkeys(str(entry[-1]) for entry in entries if entry[-1])) or type(error).__name__
