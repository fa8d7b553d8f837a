"""Policy, Twisted and a client of another make: `openssl s_client`, and Twisted's own TLS over memory."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from mailserver.config.model import Relay
from mailserver.tls.client import client_creator, client_faults
from mailserver.tls.keypair.pair import BadPair
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.client_authority import ClientAuthority
from tests.tls.site import Site, authority, quiet


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "ca.pem").write_bytes(authority()[0])
    return Site(tmp_path).add("example.test", ["mail.example.test"]).add("example.org", ["*.example.org"])


@contextmanager
def serving(policy: TlsPolicy) -> Iterator[int]:
    """A port that greets after the handshake, each connection until its end. Gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        while True:
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(20)
                converse(policy.serverConnectionForTLS(None), connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


def converse(tls: SSL.Connection, connection: socket.socket) -> None:
    tls.set_accept_state()
    greeted = False
    while True:
        try:
            if not greeted:
                tls.do_handshake()
                tls.send(b"* OK hello\r\n")
                greeted = True
            tls.recv(1000)
        except SSL.WantReadError:
            pass
        except SSL.Error:
            flush(tls, connection)
            return
        flush(tls, connection)
        try:
            data = connection.recv(65536)
        except OSError:
            return
        if not data:
            return
        tls.bio_write(data)


def flush(tls: SSL.Connection, connection: socket.socket) -> None:
    with suppress(SSL.WantReadError, OSError):
        connection.sendall(tls.bio_read(1 << 20))


def s_client(port: int, *arguments: str, sni: str | None = "mail.example.test", ca: Path | None = None) -> str:
    name = ["-servername", sni] if sni is not None else ["-noservername"]
    trust = ["-CAfile", str(ca)] if ca is not None else []
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *name, *trust, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        told = b""
        # The server's greeting comes behind its tickets; to quit earlier would lose them.
        while b"* OK hello" not in told and (more := process.stdout.read(65536)):
            told += more
        rest, _nothing = process.communicate(b"Q\n" if process.poll() is None else None, timeout=60)
    return (told + rest).decode("latin-1")


class TestSClient:
    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    @pytest.mark.parametrize(("sni", "verified"), [("MAIL.example.test", "mail.example.test"), ("a.example.org",) * 2])
    def test_verified(self, site: Site, version: str, sni: str, verified: str) -> None:
        with serving(TlsPolicy(site.config(), quiet)) as port:
            told = s_client(port, version, "-verify_hostname", verified, sni=sni, ca=site.directory / "ca.pem")
        assert "Verify return code: 0 (ok)" in told

    def test_not_verified_without_the_authority(self, site: Site) -> None:
        with serving(TlsPolicy(site.config(), quiet)) as port:
            told = s_client(port, "-no-CAfile", "-no-CApath")
        assert "* OK hello" in told, "the connection stood"
        assert re.search(r"Verify return code: (20|21) \(unable to ", told), told

    def test_no_name_gets_the_default(self, site: Site) -> None:
        with serving(TlsPolicy(site.config(), quiet)) as port:
            assert re.search(r"subject=CN ?= ?mail.example.test", s_client(port, sni=None))

    def test_refused_name_sees_the_alert(self, site: Site, capfd: pytest.CaptureFixture[str]) -> None:
        site.tls = ['unknown_name = "refuse"']
        with serving(TlsPolicy(site.config(), quiet)) as port:
            told = s_client(port, sni="elsewhere.example.net")
        assert "unrecognized name" in told
        assert "SSL alert number 112" in told
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
    def test_old_versions_see_protocol_version(self, site: Site, version: str) -> None:
        with serving(TlsPolicy(site.config(), quiet)) as port:
            told = s_client(port, version, "-cipher", "ALL:@SECLEVEL=0")
        # RFC 8446 6.2: alert protocol_version(70).
        assert "SSL alert number 70" in told

    def test_cbc_is_refused(self, site: Site) -> None:
        with serving(TlsPolicy(site.config(), quiet)) as port:
            told = s_client(port, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384")
        # RFC 5246 7.2.2: alert handshake_failure(40).
        assert "SSL alert number 40" in told

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_resumption(self, site: Site, tmp_path: Path, version: str) -> None:
        session = str(tmp_path / "session")
        with serving(TlsPolicy(site.config(), quiet)) as port:
            first = s_client(port, version, "-sess_out", session)
            again = s_client(port, version, "-sess_in", session)
        assert re.search(r"^New, ", first, re.MULTILINE)
        assert re.search(r"^Reused, ", again, re.MULTILINE)


class Greeter(Protocol):
    """Keeps what it reads, and says why it ended."""

    def __init__(self) -> None:
        self.read = b""
        self.reason: Failure | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.read += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.reason = reason


def shake(client_side, server_side) -> tuple[Greeter, Greeter]:
    """Two of Twisted's TLS protocols talk until both are silent."""
    ends = []
    for creator, is_client in ((client_side, True), (server_side, False)):
        greeter = Greeter()
        factory = TLSMemoryBIOFactory(creator, is_client, Factory.forProtocol(lambda g=greeter: g), Clock())
        protocol, transport = factory.buildProtocol(None), StringTransport()
        ends.append((greeter, protocol, transport))
    for _greeter, protocol, transport in ends:
        protocol.makeConnection(transport)
    for _round in range(10):
        for (_g, _p, source), (_g2, target, _t2) in (ends, ends[::-1]):
            data = source.value()
            source.clear()
            if data:
                target.dataReceived(data)
            # Writes are buffered until the clock moves.
            for _greeter, protocol, _transport in ends:
                protocol.factory._clock.advance(1)
    for _greeter, protocol, transport in ends:
        if transport.disconnecting or transport.disconnected:
            protocol.connectionLost(Failure(ConnectionDone()))
    return ends[0][0], ends[1][0]


class TestTwisted:
    def test_relay_and_server_talk(self, site: Site) -> None:
        relay = Relay(host="mail.example.test", ca_file=site.directory / "ca.pem")
        client, server = shake(client_creator(relay), TlsPolicy(site.config(), quiet))
        assert (client.read, server.read) == (b"hello", b"hello")

    def test_relay_sends_its_host_name(self, site: Site) -> None:
        relay = Relay(host="a.example.org", ca_file=site.directory / "ca.pem")
        client, _server = shake(client_creator(relay), TlsPolicy(site.config(), quiet))
        assert client.read == b"hello"

    @pytest.mark.parametrize("host", ["mail.example.net", "a.b.example.org", "192.0.2.1"])
    def test_relay_refuses_another_name(self, site: Site, host: str) -> None:
        relay = Relay(host=host, ca_file=site.directory / "ca.pem")
        client, _server = shake(client_creator(relay), TlsPolicy(site.config(), quiet))
        assert client.read == b""
        assert client.reason is not None
        assert client.reason.type is not ConnectionDone

    def test_relay_refuses_another_authority(self, site: Site) -> None:
        relay = Relay(host="mail.example.test")
        client, _server = shake(client_creator(relay), TlsPolicy(site.config(), quiet))
        assert client.read == b""
        assert client.reason is not None

    def test_authorities_that_cannot_be_read(self, site: Site) -> None:
        with pytest.raises(BadPair, match="cannot be read"):
            client_creator(Relay(host="mail.example.test", ca_file=site.directory / "missing.pem"))

    def test_refused_name_ends_the_connection(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.tls = ['unknown_name = "refuse"']
        relay = Relay(host="elsewhere.example.net", ca_file=site.directory / "ca.pem")
        client, server = shake(client_creator(relay), TlsPolicy(site.config(), quiet))
        assert client.reason is not None
        assert "unrecognized name" in str(client.reason.value)
        assert server.read == b""
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("host", ["mail.example.net", "192.0.2.1"])
    def test_relay_whose_certificate_nobody_looks_at(self, site: Site, host: str) -> None:
        relay = Relay(host=host, verification="none")
        client, server = shake(client_creator(relay), TlsPolicy(site.config(), quiet))
        assert (client.read, server.read) == (b"hello", b"hello")
        assert any(fault.warning and fault.key == "verification" for fault in client_faults(relay))

    def test_relay_with_a_least_version(self, site: Site) -> None:
        site.tls = ['maximum_version = "1.2"']
        ca = site.directory / "ca.pem"
        for version, read in (("1.2", b"hello"), ("1.3", b"")):
            relay = Relay(host="mail.example.test", ca_file=ca, minimum_version=version)
            assert shake(client_creator(relay), TlsPolicy(site.config(), quiet))[0].read == read

    def test_relay_shows_its_certificate(self, site: Site) -> None:
        clients = ClientAuthority()
        (site.directory / "clients.pem").write_bytes(clients.pem)
        site.of_domain["example.test"] = ['client_certificates = "required"', 'client_ca = "clients.pem"']
        relay = Relay(host="mail.example.test", ca_file=site.directory / "ca.pem")
        assert shake(client_creator(relay), TlsPolicy(site.config(), quiet))[1].read == b""
        between = ClientAuthority("Between", parent=clients)
        for name, octets in zip(("relay.pem", "relay.key"), between.issue(chain=between.pem), strict=True):
            (site.directory / name).write_bytes(octets)
        certificate, key = site.directory / "relay.pem", site.directory / "relay.key"
        relay = attrs.evolve(relay, certificate=certificate, key=key)
        assert client_faults(relay) == []
        assert shake(client_creator(relay), TlsPolicy(site.config(), quiet))[1].read == b"hello"
        password = site.directory / "relay-password"
        password.write_bytes(b"hunter2\n")
        encryption = serialization.BestAvailableEncryption(b"hunter2")
        plain = serialization.load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
        (fault,) = client_faults(relay)
        assert fault.reason.endswith("set key_password_file")
        relay = attrs.evolve(relay, key_password_file=password)
        assert client_faults(relay) == []
        assert shake(client_creator(relay), TlsPolicy(site.config(), quiet))[1].read == b"hello"
        for words, place in ((b"\n", "key_password_file"), (b"other\n", "key")):
            password.write_bytes(words)
            assert [fault.key for fault in client_faults(relay)] == [place]
        key.write_bytes(between.issue()[1])
        assert [str(fault.reason) for fault in client_faults(relay)] == [
            "does not belong to the certificate: put both files of the same renewal there"
        ]
