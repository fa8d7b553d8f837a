"""The default of one listener, as Dovecot has it by `local ADDRESS { ssl_server_cert_file = ... }`."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from mailserver.config.model import Listener
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.client_authority import ClientAuthority
from tests.tls.site import ORG, TEST, Client, Site, quiet


def listeners(site: Site) -> tuple[Listener, Listener]:
    """With a default of its own, and without."""
    site.more = '[[listener]]\nprotocol = "pop3s"\ndefault = "mail.example.org"'
    plain, own = sorted(site.config().listeners, key=lambda each: each.default or "")
    return own, plain


@pytest.mark.parametrize(
    ("name", "shown", "host"),
    [
        (None, ORG, "mail.example.org"),
        (b"elsewhere.example.net", ORG, "mail.example.org"),
        (b"192.0.2.1", ORG, "mail.example.org"),
        (b"mail.example.test", TEST, "mail.example.test"),
        (b"imap.example.org", ORG, "*.example.org"),
    ],
)
def test_it_is_served_there_to_who_asks_for_none(
    site: Site, name: bytes | None, shown: tuple[str, ...], host: str
) -> None:
    own, _plain = listeners(site)
    seen = Client().connect(TlsPolicy(site.config(), quiet).creator(own), name)
    assert (seen.names, seen.host) == (shown, host)


def test_nowhere_else(site: Site) -> None:
    _own, plain = listeners(site)
    policy = TlsPolicy(site.config(), quiet)
    for name in (None, b"elsewhere.example.net"):
        seen = Client().connect(policy.creator(plain), name)
        assert (seen.names, seen.host) == (TEST, None)


def test_unknown_names_are_refused_there_too(site: Site) -> None:
    site.tls = ['unknown_name = "refuse"']
    own, _plain = listeners(site)
    creator = TlsPolicy(site.config(), quiet).creator(own)
    assert Client().connect(creator, None).names == ORG
    with pytest.raises(SSL.Error, match="unrecognized name"):
        Client().connect(creator, b"elsewhere.example.net")


def test_it_is_renewed_with_its_host(site: Site) -> None:
    own, _plain = listeners(site)
    policy = TlsPolicy(site.config(), quiet)
    before = Client().connect(policy.creator(own), None).fingerprint
    site.renew("example.org")
    policy.reload(site.config())
    after = Client().connect(policy.creator(own), None).fingerprint
    assert after != before
    assert after == Client().connect(policy.creator(own), b"mail.example.org").fingerprint


def test_other_processes_serve_it_too(site: Site) -> None:
    own, _plain = listeners(site)
    judge = TlsPolicy(site.config(), quiet)
    server = TlsPolicy(site.config(), quiet, material=judge.material)
    assert Client().connect(server.creator(own), None).host == "mail.example.org"


def test_what_its_host_requires_holds(site: Site) -> None:
    """Who sends no name is a client of that host, with all that it demands."""
    clients = ClientAuthority()
    (site.directory / "clients.pem").write_bytes(clients.pem)
    site.of_domain["example.org"] = ['client_certificates = "required"', 'client_ca = "clients.pem"']
    own, plain = listeners(site)
    policy = TlsPolicy(site.config(), quiet)
    assert Client().connect(policy.creator(plain), None).names == TEST
    with pytest.raises(SSL.Error, match="certificate required"):
        Client().connect(policy.creator(own), None)
    shown = Client(certificate=clients.issue()).connect(policy.creator(own), None)
    assert shown.client is not None


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_session_of_another_listener_is_no_way_around_it(site: Site, version: int) -> None:
    (site.directory / "clients.pem").write_bytes(ClientAuthority().pem)
    site.of_domain["example.org"] = ['client_certificates = "required"', 'client_ca = "clients.pem"']
    own, plain = listeners(site)
    policy = TlsPolicy(site.config(), quiet)
    client = Client(version)
    session = client.connect(policy.creator(plain), None).session
    assert client.connect(policy.creator(plain), None, session).resumed  # it is one that works
    with pytest.raises(SSL.Error, match=r"certificate required|handshake failure"):
        client.connect(policy.creator(own), None, session)
