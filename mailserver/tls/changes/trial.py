"""Trial handshakes: one in memory before a change is served, and one with the listeners afterwards.

A handshake that fails, or shows another certificate, is a fault. A listener that cannot be reached (its port is full, it
accepts connections of a proxy alone) proves nothing against a certificate.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import socket
import ssl
from collections.abc import Container, Iterable, Mapping
from typing import Final

from OpenSSL import SSL

from mailserver.config.model import Listener, Tls
from mailserver.tls.context.context_map import ContextMap, ServedHost, parse_server_name
from mailserver.tls.context.contexts import make_base
from mailserver.tls.context.settings import settings_of

PATIENCE: Final = 3.0
"""Timeout of each step with a listener, in seconds."""
MOST_LINE: Final = 4096
_ROUNDS: Final = 8

_STARTTLS: Final[Mapping[str, tuple[tuple[bytes, bytes], ...]]] = {
    "imap": ((b"", b"* OK"), (b"p STARTTLS\r\n", b"p OK")),
    "pop3": ((b"", b"+OK"), (b"STLS\r\n", b"+OK")),
    "submission": ((b"", b"220 "), (b"EHLO probe.invalid\r\n", b"250 "), (b"STARTTLS\r\n", b"220 ")),
    "lmtp": ((b"", b"220 "), (b"LHLO probe.invalid\r\n", b"250 "), (b"STARTTLS\r\n", b"220 ")),
}
"""Each command, and the beginning of the expected reply."""


def fingerprints(serving: ServedHost) -> frozenset[str]:
    """Return the fingerprints of the certificates that a client may be shown."""
    return frozenset(pair.fingerprint for pair in serving.pairs)


def server_name(host: str) -> str:
    """Return a server name that a client may request for a host or `*.parent`."""
    return host.replace("*", "probe", 1)


def check_in_memory(served: ContextMap, tls: Tls, hosts: Iterable[str]) -> dict[str, str]:
    """Shake hands in memory with the prepared context of each host; return the faults by host."""

    def choose(connection: SSL.Connection) -> None:
        found = served.find(parse_server_name(connection.get_servername()))
        if found is not None:
            connection.set_context(found.context)

    # Keep it until all handshakes are over: it must not be freed during one.
    base = make_base(settings_of(tls), choose)
    faults = {}
    for host in hosts:
        try:
            seen = _shake_hands_in_memory(base, server_name(host))
        except SSL.Error as fault:
            faults[host] = f"a handshake fails: {_reason(fault)}"
        else:
            if seen not in fingerprints(served.by_host[host]):
                faults[host] = "a handshake shows another certificate"
    return faults


def _shake_hands_in_memory(base: SSL.Context, name: str) -> str:
    """Return the fingerprint that a client sees. Raises: SSL.Error."""
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    client.set_tlsext_host_name(name.encode("ascii"))
    server = SSL.Connection(base, None)
    server.set_accept_state()
    for _round in range(_ROUNDS):
        for side, other in ((client, server), (server, client)):
            try:
                side.do_handshake()
            except SSL.WantReadError:
                pass
            else:
                if side is client:
                    certificate = client.get_peer_certificate()
                    assert certificate is not None
                    return bytes.fromhex(certificate.digest("sha256").decode().replace(":", "")).hex()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(side.bio_read(1 << 20))
    raise SSL.Error([("", "", "it does not end")])


def _reason(fault: SSL.Error) -> str:
    entries = fault.args[0] if fault.args and isinstance(fault.args[0], list) else []
    return ", ".join(dict.fromkeys(str(entry[-1]) for entry in entries if entry[-1])) or "no reason given"


def check_listeners(
    served: Iterable[Listener], hosts: Mapping[str, frozenset[str]], demanding: Container[str] = ()
) -> dict[str, str]:
    """Shake hands with this server's listeners for each host, expecting one of its fingerprints; return faults by host.

    `demanding` hosts require a client certificate. TLS 1.2 shows nothing to a client without one (RFC 5246 7.4.6), so a
    failed handshake proves nothing against them.

    Blocks, at most PATIENCE for each step. A listener that does not answer in time is not tried again.
    """
    faults: dict[str, str] = {}
    with_tls = [each for each in served if each.implicit_tls or each.starttls]
    for listener, address in [(each, address) for each in with_tls for address in each.bind_addresses]:
        for host, expected in hosts.items():
            if host in faults:
                continue
            try:
                seen = _shake_hands_with(listener, _reachable(address), server_name(host))
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                break  # closed, perhaps because of a connection limit
            except ssl.SSLError as fault:
                if host in demanding and "HANDSHAKE_FAILURE" in (fault.reason or ""):
                    continue
                faults[host] = f"a handshake with {listener.protocol} at {address} fails: {fault.reason}"
            except OSError:
                break  # the next address
            else:
                if seen not in expected:
                    faults[host] = f"{listener.protocol} at {address} shows another certificate"
    return faults


def _shake_hands_with(listener: Listener, address: str, name: str) -> str:
    """Return the fingerprint that a listener shows. Raises: OSError, including ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, listener.tcp_port), PATIENCE) as plain:
        own = ipaddress.ip_address(plain.getsockname()[0])
        if any(own in ipaddress.ip_network(network) for network in listener.proxy_from):
            plain.sendall(b"PROXY UNKNOWN\r\n")
        if not listener.implicit_tls:
            for said, wanted in _STARTTLS[listener.protocol]:
                plain.sendall(said)
                _expect(plain, wanted)
        with context.wrap_socket(plain, server_hostname=name) as secured:
            octets = secured.getpeercert(binary_form=True)
    assert octets is not None
    return hashlib.sha256(octets).hexdigest()


def _expect(connection: socket.socket, wanted: bytes) -> None:
    """Read until a whole line begins with `wanted`. Raises: OSError."""
    received = b""
    while not any(line.startswith(wanted) for line in received.split(b"\r\n")[:-1]):
        piece = connection.recv(MOST_LINE)
        received += piece
        if not piece or len(received) > MOST_LINE:
            raise ConnectionError("the listener does not offer STARTTLS")


def _reachable(address: str) -> str:
    """Return the address under which a bound address can be reached locally."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
