"""Sessions of TLS are resumed under their own name alone (RFC 6066 3), in TLS 1.3 as well."""

from __future__ import annotations

import attrs
import pytest
from OpenSSL import SSL

from mailserver.config.model import Listener
from mailserver.tls.context.client_hello import LONGEST, MOST_RECORDS, Incomplete, Unreadable, server_name
from mailserver.tls.context.handshake import ServerConnection
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import Client, Site, client_hello, quiet

VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
TEST, ORG = b"mail.example.test", b"mail.example.org"


@VERSIONS
@pytest.mark.parametrize(
    ("first", "then", "resumed"),
    [
        (TEST, TEST, True),
        (TEST, b"Mail.Example.TEST", True),
        (TEST, b"mail.example.test.", True),
        (TEST, ORG, False),
        (ORG, TEST, False),
        (ORG, b"imap.example.org", False),  # another name of the same certificate
        (TEST, None, False),
        (None, TEST, False),
        (None, None, True),
        (b"unknown.example.net", b"unknown.example.net", True),
        (b"unknown.example.net", TEST, False),
        (b"unknown.example.net", b"other.example.net", False),
    ],
)
def test_a_session_is_its_names_alone(
    policy: TlsPolicy, version: int, first: bytes | None, then: bytes | None, resumed: bool
) -> None:
    client = Client(version)
    again = client.connect(policy, then, client.connect(policy, first).session)
    assert again.resumed is resumed
    expected = Client(version).connect(policy, then)
    assert (again.names, again.host) == (expected.names, expected.host)
    # What is made instead can be resumed under its own name.
    assert client.connect(policy, then, again.session).resumed


@VERSIONS
def test_nor_across_listeners_that_serve_others_by_default(site: Site, version: int) -> None:
    """The same ports and names otherwise: of two protocols, say."""
    config = site.config()
    imaps, pop3s = Listener(protocol="imaps"), Listener(protocol="pop3s", default="mail.example.org")
    submissions = Listener(protocol="submissions")
    policy = TlsPolicy(attrs.evolve(config, listeners=(imaps, pop3s, submissions)), quiet)
    client = Client(version)
    of_imaps = client.connect(policy.creator(imaps), None).session
    assert client.connect(policy.creator(submissions), None, of_imaps).resumed, "the same certificate"
    other = client.connect(policy.creator(pop3s), None, client.connect(policy.creator(imaps), None).session)
    assert (other.resumed, other.names) == (False, ("*.example.org", "mail.example.org"))
    # By its name each is the same at any of them.
    assert client.connect(policy.creator(pop3s), TEST, client.connect(policy.creator(imaps), TEST).session).resumed


@VERSIONS
def test_a_client_hello_in_pieces(policy: TlsPolicy, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hello with keys for times of quantum computers is longer than a packet."""
    whole = ServerConnection.bio_write

    def in_pieces(self: ServerConnection, octets: bytes) -> int:
        for at in range(0, len(octets), 7):
            whole(self, octets[at : at + 7])
        return len(octets)

    monkeypatch.setattr(ServerConnection, "bio_write", in_pieces)
    client = Client(version)
    assert client.connect(policy, TEST, client.connect(policy, TEST).session).resumed
    assert not client.connect(policy, ORG, client.connect(policy, TEST).session).resumed


def test_where_the_name_cannot_be_read_nothing_is_resumed(policy: TlsPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_octets: bytes) -> bytes | None:
        raise Unreadable

    monkeypatch.setattr("mailserver.tls.context.handshake.server_name", unreadable)
    for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
        client = Client(version)
        assert not client.connect(policy, TEST, client.connect(policy, TEST).session).resumed


class TestServerName:
    def test_it_is_found(self) -> None:
        assert server_name(client_hello(b"mail.example.test") + b"\x14\x03\x03") == b"mail.example.test"

    def test_of_a_client_of_openssl(self) -> None:
        for name in (b"mail.example.test", None):
            ours = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
            ours.set_connect_state()
            if name is not None:
                ours.set_tlsext_host_name(name)
            with pytest.raises(SSL.WantReadError):
                ours.do_handshake()
            octets = ours.bio_read(1 << 16)
            assert server_name(octets) == name
            for end in range(len(octets)):
                with pytest.raises(Incomplete):
                    server_name(octets[:end])

    def test_in_several_records(self) -> None:
        hello = client_hello(b"mail.example.test")[5:]
        pieces = [hello[at : at + 11] for at in range(0, len(hello), 11)]
        assert len(pieces) <= MOST_RECORDS
        records = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)
        assert server_name(records) == b"mail.example.test"
        with pytest.raises(Incomplete):
            server_name(records[:-1])
        with pytest.raises(Unreadable):
            server_name(records[:16] + b"\x17" + records[17:])

    def test_in_too_many_records(self) -> None:
        """Whoever sends one octet a record, and a packet each, has us look at few of them."""
        hello = client_hello(b"mail.example.test")[5:]
        records = b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(len(hello)))
        with pytest.raises(Unreadable):
            server_name(records)

    def test_without_extensions(self) -> None:
        body = bytes.fromhex("0303") + bytes(32) + b"\0" + bytes.fromhex("0002 c02b 0100")
        hello = b"\x01" + len(body).to_bytes(3, "big") + body
        assert server_name(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello) is None

    @pytest.mark.parametrize(
        "octets", [b"a001 NOOP\r\n", b"\x16\x03\x01\x00\x01\x02", b"\x80\x2e\x01\x03\x01" + bytes(9)]
    )
    def test_what_is_no_client_hello(self, octets: bytes) -> None:
        with pytest.raises(Unreadable):
            server_name(octets)

    def test_no_length_leads_beyond_it(self) -> None:
        whole = client_hello(b"mail.example.test")
        for at in range(43, len(whole)):
            for octet in (0, 0x7F, 0xFF):
                spoilt = whole[:at] + bytes([octet]) + whole[at + 1 :]
                try:
                    name = server_name(spoilt)
                except Unreadable:
                    continue
                assert name is None or name in spoilt

    def test_one_that_never_ends_is_not_kept(self, policy: TlsPolicy) -> None:
        connection = policy.connection(None, ())
        assert isinstance(connection, ServerConnection)
        connection.examine(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(LONGEST))
        assert connection._hello is None
