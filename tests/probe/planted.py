"""Listeners with one fault each, on loopback, and the certificates for them."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from mailserver.config.load import load
from mailserver.config.model import Config
from mailserver.probe.chain import Trust
from mailserver.probe.examine import Examination, Report
from mailserver.probe.expectation import Certificates
from tests.loopback import LoopbackServer

HOST = "mail.example.test"
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


@define
class Issuer:
    """An authority of the tests."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _authority(text: str, above: Issuer | None = None) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(text))
        .issuer_name(above.certificate.subject if above else _name(text))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 1000 * DAY)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(above.key if above else key, hashes.SHA256())
    )
    return Issuer(certificate, key)


@functools.cache
def root() -> Issuer:
    return _authority("Root of the tests")


@functools.cache
def intermediate() -> Issuer:
    return _authority("Intermediate of the tests", root())


@define
class Leaf:
    """A server's certificate; each field is a way to go wrong."""

    names: tuple[str, ...] = (HOST,)
    start: dt.datetime = NOW - DAY
    days: int = 90
    key: Any = field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    sha1: bool = False
    usage: Any = ExtendedKeyUsageOID.SERVER_AUTH
    issuer: Issuer | None = field(factory=intermediate)
    """None: signed by itself."""
    chain: tuple[bytes, ...] = field(factory=lambda: (intermediate().pem,))

    @functools.cached_property
    def pem(self) -> bytes:
        """The certificate and its chain."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(HOST))
            .issuer_name(self.issuer.certificate.subject if self.issuer else _name(HOST))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.start)
            .not_valid_after(self.start + self.days * DAY)
            .add_extension(x509.ExtendedKeyUsage([self.usage]), critical=False)
        )
        if self.names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in self.names])
            builder = builder.add_extension(alternative, critical=False)
        signer = self.issuer.key if self.issuer else self.key
        made = builder.sign(signer, hashes.SHA256())
        if self.sha1:
            old = crypto.X509.from_cryptography(made)
            with warnings.catch_warnings(action="ignore"):  # nothing else signs with SHA-1 any more
                old.sign(crypto.PKey.from_cryptography_key(signer), "sha1")
            made = old.to_cryptography()
        return made.public_bytes(serialization.Encoding.PEM) + b"".join(self.chain)

    @property
    def key_pem(self) -> bytes:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def weak_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


@define
class Behaviour:
    """How a listener differs from one that is all right."""

    alpn: tuple[str, ...] | None = ("imap",)
    """None: it does not look at ALPN."""
    least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    unknown: str = "default"
    """What becomes of other names: "default", "refuse"."""
    capabilities: bytes = b"IMAP4rev1 STARTTLS LOGINDISABLED"
    starttls: str = "refuses"
    """What becomes of bytes behind STARTTLS: "refuses", "swallows", "executes", "answers" in clear text."""
    refuses_starttls: bool = False


class Listener(LoopbackServer):
    """A small IMAP server: implicit TLS, or STARTTLS."""

    def __init__(
        self, directory: Path, leaf: Leaf, behaviour: Behaviour, *, implicit: bool, second: Leaf | None = None
    ) -> None:
        super().__init__()
        self._behaviour = behaviour
        self._implicit = implicit
        pair = directory / f"shown-{implicit}.pem"
        pair.write_bytes(leaf.pem + leaf.key_pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        old = behaviour.least < ssl.TLSVersion.TLSv1_2
        weak = isinstance(leaf.key, rsa.RSAPrivateKey) or leaf.sha1
        if old or weak:
            self._context.set_ciphers("ALL:@SECLEVEL=0")
        self._context.load_cert_chain(pair)
        if second is not None:
            pair.write_bytes(second.pem + second.key_pem)
            self._context.load_cert_chain(pair)
        self._context.minimum_version = behaviour.least
        self._context.maximum_version = behaviour.most
        self._context.sni_callback = self._choose

    def require_certificates(self, authorities: bytes) -> None:
        self._context.load_verify_locations(cadata=authorities.decode())
        self._context.verify_mode = ssl.CERT_REQUIRED

    def _choose(self, _socket: object, name: str | None, _context: object) -> ssl.AlertDescription | None:
        if name is None or name == HOST or self._behaviour.unknown == "default":
            return None
        return ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    def serve(self, connection: socket.socket) -> None:
        if not self._implicit:
            connection.sendall(b"* OK hello\r\n")
            if not self._until_tls(connection):
                return
        alpn = self._behaviour.alpn
        if alpn is not None:
            offered = _offered_protocols(connection)
            if offered and not set(offered) & set(alpn):
                connection.recv(65536)
                connection.sendall(b"\x15\x03\x03\x00\x02\x02\x78")  # no_application_protocol
                return
            self._context.set_alpn_protocols(list(alpn))
        with self._context.wrap_socket(connection, server_side=True) as secured:
            if self._left:
                secured.sendall(self._left)
            while line := secured.recv(1000):
                secured.sendall(line.split(b" ")[0] + b" OK\r\n")

    _left = b""

    def _until_tls(self, connection: socket.socket) -> bool:
        behaviour = self._behaviour
        received = b""
        self._left = b""
        while True:
            while b"\r\n" not in received:
                piece = connection.recv(1000)
                if not piece:
                    return False
                received += piece
            line, _end, received = received.partition(b"\r\n")
            tag, command = line.split(b" ")[:2]
            if command == b"CAPABILITY":
                connection.sendall(b"* CAPABILITY " + behaviour.capabilities + b"\r\n" + tag + b" OK\r\n")
            elif command == b"STARTTLS":
                if behaviour.refuses_starttls or (received and behaviour.starttls == "refuses"):
                    connection.sendall(tag + b" BAD no\r\n")
                    return False
                connection.sendall(tag + b" OK\r\n")
                return self._before_hello(connection, received)
            else:
                connection.sendall(tag + b" OK\r\n")

    def _before_hello(self, connection: socket.socket, received: bytes) -> bool:
        if not received and connection.recv(1, socket.MSG_PEEK) != b"\x16":
            if self._behaviour.starttls == "refuses":
                return False
            received = connection.recv(1000)
        answer = received.split(b" ")[0] + b" OK done\r\n" if received else b""
        if self._behaviour.starttls == "executes":
            self._left = answer
        elif self._behaviour.starttls == "answers":
            connection.sendall(answer)
        return True


def _offered_protocols(connection: socket.socket) -> list[str]:
    """Those of a ClientHello that waits to be read: Python's server cannot refuse foreign ones (RFC 7301 3.2)."""
    header = connection.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL)
    size = 5 + int.from_bytes(header[3:5])
    hello = connection.recv(size, socket.MSG_PEEK | socket.MSG_WAITALL)
    known = ("imap", "h3", "xmpp-client")
    return [name for name in known if bytes([len(name)]) + name.encode() in hello]


@define
class Planted:
    """A configuration and what listens for it."""

    directory: Path
    leaf: Leaf = field(factory=Leaf)
    """What is configured."""
    host: str = HOST
    others: tuple[str, ...] = ()
    """Further hosts of the domain."""
    second: Leaf | None = None
    """A second certificate, of RSA."""
    hides_second: bool = False
    shown: Leaf | None = None
    """What is shown, if it is another."""
    behaviour: Behaviour = field(factory=Behaviour)
    key_mode: int = 0o600
    more: str = ""
    """Further lines of the configuration."""
    of_tls: str = ""
    of_domain: str = ""
    required: bool = False
    """Clients must show certificates."""
    down: bool = False

    def config(self, implicit: int, starttls: int) -> Config:
        (self.directory / "chain.pem").write_bytes(self.leaf.pem)
        key = self.directory / "key.pem"
        key.write_bytes(self.leaf.key_pem)
        key.chmod(self.key_mode)
        (self.directory / "root.pem").write_bytes(root().pem)
        path = self.directory / "mailserver.toml"
        path.write_text(
            '[server]\nhostname = "mail.example.test"\nuser = "root"\nstate_dir = "state"\nruntime_dir = "run"\n'
            f'[mail]\nroot = "mail"\n[auth]\nbackends = ["file:users"]\n[tls]\n{self.of_tls}\n'
            f'[[domain]]\nname = "example.test"\nhosts = {json.dumps([self.host, *self.others])}\ncertificate = "chain.pem"\nkey = "key.pem"\n'
            f"{self._more_keys}"
            f'[[listener]]\nprotocol = "imaps"\nport = {implicit}\naddresses = ["127.0.0.1"]\n'
            f'[[listener]]\nprotocol = "imap"\nport = {starttls}\naddresses = ["127.0.0.1"]\n{self.more}'
        )
        config, problems = load(path)
        assert config is not None, "\n".join(map(str, problems))
        return config

    @property
    def _more_keys(self) -> str:
        """Of the domain."""
        lines = self.of_domain + "\n"
        lines += 'client_certificates = "required"\nclient_ca = "root.pem"\n' if self.required else ""
        if self.second is not None:
            (self.directory / "second.pem").write_bytes(self.second.pem)
            (self.directory / "second.key").write_bytes(self.second.key_pem)
            lines += 'second_certificate = "second.pem"\nsecond_key = "second.key"\n'
        return lines

    @contextlib.contextmanager
    def serving(self) -> Iterator[Config]:
        shown = self.shown or self.leaf
        other = None if self.hides_second else self.second
        with (
            Listener(self.directory, shown, self.behaviour, implicit=True, second=other) as first,
            Listener(self.directory, shown, self.behaviour, implicit=False, second=other) as second,
        ):
            config = self.config(first.port, second.port)
            if self.required:
                first.require_certificates(root().pem)
                second.require_certificates(root().pem)
            if self.down:
                first.__exit__()
            yield config

    def report(self, *hosts: str, fully: bool = False, progress: Callable[[int, int], None] | None = None) -> Report:
        with self.serving() as config:
            examination = Examination(config, self.trust(), Certificates(lambda _host: None), NOW)
            return examination.run(hosts, fully=fully, progress=progress or (lambda _done, _all: None))

    def trust(self) -> Trust:
        return Trust.load([self.directory / "root.pem"])
