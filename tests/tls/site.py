"""A configuration with certificates of a private authority in a directory, and handshakes with a policy in memory."""

from __future__ import annotations

import contextlib
import functools
import struct
from pathlib import Path
from typing import Any, cast

from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator

from mailserver.config.load import load
from mailserver.config.model import Config
from mailserver.tls.context.context_map import parse_server_name
from mailserver.tls.context.handshake import handshake_of, verified_certificate
from mailserver.tls.serving import validation

TEST, ORG = ("mail.example.test",), ("*.example.org", "mail.example.org")


class Lines(list):
    """A log as (event, fields)."""

    def __call__(self, event: str, /, **fields: object) -> None:
        self.append((event, fields))


def quiet(event: str, /, **fields: object) -> None:
    """A log that nobody reads."""


@functools.cache
def authority() -> tuple[bytes, bytes]:
    return validation.make_ca("Authority of the tests")


class Site:
    """Domains added with `add` are in the file that `config` loads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.domains: dict[str, list[str]] = {}
        self.tls: list[str] = []
        self.more = ""
        self.of_domain: dict[str, list[str]] = {}
        """Further lines of a domain's table."""
        self.user = "root"
        self.managed: set[str] = set()
        """Domains that name no files."""

    def add(self, name: str, hosts: list[str]) -> Site:
        self.domains[name] = hosts
        self.renew(name)
        return self

    def renew(self, name: str, names: list[str] | None = None, **how: Any) -> None:
        certificate, key = validation.issue(authority(), names or self.domains[name], **how)
        self.put(name, certificate, key)

    def put(self, name: str, certificate: bytes | None = None, key: bytes | None = None) -> None:
        if certificate is not None:
            self.certificate(name).write_bytes(certificate)
        if key is not None:
            self.key(name).write_bytes(key)
            self.key(name).chmod(0o600)

    def certificate(self, name: str) -> Path:
        return self.directory / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    def write(self) -> Path:
        lines = [
            f'[server]\nhostname = "mail.example.test"\nuser = "{self.user}"\nstate_dir = "state"',
            'runtime_dir = "run"',
            f'[mail]\nroot = "{self.directory}/mail"',
            '[auth]\nbackends = ["file:/etc/mailserver/users"]',
            '[[listener]]\nprotocol = "imaps"',
            "[tls]",
            *self.tls,
            self.more,
        ]
        for name, hosts in self.domains.items():
            lines.append(f'[[domain]]\nname = "{name}"\nhosts = {hosts!r}')
            if name not in self.managed:
                lines.append(f'certificate = "{name}.pem"\nkey = "{name}.key"')
            lines += self.of_domain.get(name, [])
        path = self.directory / "mailserver.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def config(self) -> Config:
        config, problems = load(self.write())
        assert config is not None, "\n".join(map(str, problems))
        return config


@define
class Seen:
    """What the client of a handshake saw."""

    names: tuple[str, ...]
    version: str
    suite: str
    resumed: bool
    group: str | None
    session: SSL.Session
    server_name: str | None
    host: str | None
    """What the server says that it has served."""
    fingerprint: str
    alpn: bytes
    client: x509.Certificate | None
    """The client's certificate, if the server verified it."""
    fault: str
    """What the server says of a client's certificate that it did not take."""
    sent: int
    """Certificates in the server's chain as sent."""


class Client:
    """Client connections of one context, so that their sessions can be resumed."""

    def __init__(
        self,
        version: int | None = None,
        ciphers: bytes | None = None,
        *,
        certificate: tuple[bytes, bytes] | None = None,
        alpn: list[bytes] | None = None,
    ) -> None:
        """`certificate`: the client's own, and its key."""
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if certificate is not None:
            first, *chain = x509.load_pem_x509_certificates(certificate[0])
            self.context.use_certificate(first)
            for each in chain:
                self.context.add_extra_chain_cert(each)
            key = serialization.load_pem_private_key(certificate[1], None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            self.context.use_privatekey(key)
        if alpn is not None:
            self.context.set_alpn_protos(alpn)
        if ciphers is not None:
            self.context.set_cipher_list(ciphers)
        if version is not None:
            self.context.set_min_proto_version(version)
            self.context.set_max_proto_version(version)

    def connect(
        self,
        policy: IOpenSSLServerConnectionCreator,
        name: bytes | None,
        session: SSL.Session | None = None,
        *,
        faults: list[str] | None = None,
    ) -> Seen:
        """Shake hands and say something. Raises: SSL.Error as the client sees it.

        `faults` gets what the server says of the client's certificate, in a handshake that fails, too.
        """
        ours = SSL.Connection(self.context, None)
        ours.set_connect_state()
        if name is not None:
            ours.set_tlsext_host_name(name)
        if session is not None:
            ours.set_session(session)
        theirs = policy.serverConnectionForTLS(cast("Any", None))
        theirs.set_accept_state()
        failures: list[SSL.Error] = []
        # The client first: its error is what a user would see, the alert's name in it.
        for _round in range(8):
            for side in (ours, theirs):
                try:
                    side.do_handshake()
                except SSL.WantReadError:
                    pass
                except SSL.Error as failure:
                    failures.append(failure)
                    if side is ours:
                        if faults is not None:
                            faults.append(handshake_of(theirs).fault)
                        raise
                other = theirs if side is ours else ours
                pump(side, other)
        if faults is not None:
            faults.append(handshake_of(theirs).fault)
        if failures:
            # In TLS 1.3 a client is done before the server has seen its certificate; the alert comes when it reads.
            with contextlib.suppress(SSL.WantReadError):
                ours.recv(100)
            raise failures[0]
        theirs.send(b"hello")
        pump(theirs, ours)
        assert ours.recv(100) == b"hello"
        certificate, session = ours.get_peer_certificate(as_cryptography=True), ours.get_session()
        assert certificate is not None
        assert certificate.signature_hash_algorithm is not None
        assert session is not None
        seen = Seen(
            names=names_of(certificate),
            version=ours.get_protocol_version_name(),
            suite=ours.get_cipher_name() or "",
            resumed=bool(lib.SSL_session_reused(theirs._ssl)),
            group=ours.get_group_name(),
            session=session,
            server_name=parse_server_name(theirs.get_servername()),
            host=handshake_of(theirs).host,
            fingerprint=certificate.fingerprint(certificate.signature_hash_algorithm).hex(),
            alpn=ours.get_alpn_proto_negotiated(),
            client=verified_certificate(theirs),
            fault=handshake_of(theirs).fault,
            sent=len(ours.get_peer_cert_chain(as_cryptography=True) or ()),
        )
        # OpenSSL forgets sessions of connections that were not closed.
        ours.shutdown()
        return seen


def pump(source: SSL.Connection, target: SSL.Connection) -> None:
    with contextlib.suppress(SSL.WantReadError):
        target.bio_write(source.bio_read(1 << 20))


def names_of(certificate: object) -> tuple[str, ...]:
    assert isinstance(certificate, x509.Certificate)
    value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(value.get_values_for_type(x509.DNSName))


def client_hello(name: bytes) -> bytes:
    """RFC 5246 7.4.1.2 with the extension of RFC 6066 3, in records of at most 2^14 octets."""
    entry = b"\0" + struct.pack(">H", len(name)) + name
    extensions = b"".join(
        struct.pack(">HH", kind, len(data)) + data
        for kind, data in (
            (0, struct.pack(">H", len(entry)) + entry),
            (10, bytes.fromhex("0004 001d 0017")),
            (13, bytes.fromhex("0002 0403")),
        )
    )
    body = bytes.fromhex("0303") + bytes(32) + b"\0" + bytes.fromhex("0002 c02b 0100")
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    pieces = [message[start : start + 16384] for start in range(0, len(message), 16384)]
    return b"".join(bytes.fromhex("160301") + struct.pack(">H", len(piece)) + piece for piece in pieces)
