"""ALPN (RFC 7301): each listener answers its own protocol, and refuses clients who speak only others."""

from __future__ import annotations

from pathlib import Path

import pytest
from OpenSSL import SSL

from mailserver.config.model import Listener
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import Client, Site, quiet


@pytest.fixture
def policy(tmp_path: Path) -> TlsPolicy:
    site = Site(tmp_path).add("example.test", ["mail.example.test"])
    return TlsPolicy(site.config(), quiet)


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize(
    ("protocol", "offered", "agreed"),
    [
        ("imaps", [b"imap"], b"imap"),
        ("imap", [b"h2", b"imap"], b"imap"),
        ("pop3s", [b"imap", b"pop3"], b"pop3"),
        ("submissions", [b"smtp"], b"smtp"),
        ("submission", [b"smtp", b"submission"], b"submission"),
        ("lmtp", [b"lmtp"], b"lmtp"),
        ("https", [b"h2", b"http/1.1"], b"http/1.1"),
        ("imaps", None, b""),
    ],
)
def test_agreed(policy: TlsPolicy, version: int, protocol: str, offered: list[bytes] | None, agreed: bytes) -> None:
    creator = policy.creator(Listener(protocol))
    assert Client(version, alpn=offered).connect(creator, b"mail.example.test").alpn == agreed


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize(
    ("protocol", "offered"),
    [("imaps", [b"http/1.1", b"h2"]), ("imaps", [b"pop3"]), ("pop3s", [b"imap"]), ("submissions", [b"\xff\0\n"])],
)
def test_only_foreign_protocols(policy: TlsPolicy, version: int, protocol: str, offered: list[bytes]) -> None:
    """RFC 7301 3.2: alert no_application_protocol(120). What stands in OpenSSL's queue then harms nobody else."""
    creator = policy.creator(Listener(protocol))
    with pytest.raises(SSL.Error, match="no application protocol"):
        Client(version, alpn=offered).connect(creator, b"mail.example.test")
    assert Client(version).connect(creator, b"mail.example.test").names == ("mail.example.test",)
