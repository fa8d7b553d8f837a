"""TLS under a connection to the next hop, without a socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.outbound.dialer import HopProtocol
from mailserver.net.transport.tls import MAX_UNSOLICITED, StockTlsFactory, TooManyAnswers
from tests.net.key_updates import KeyUpdater, needs_library


@implementer(IOpenSSLClientConnectionCreator)
class Creator:
    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N803
        return SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    trustme.CA().issue_cert("hop.example.net").private_key_and_cert_chain_pem.write_to_path(tmp_path / "hop.pem")
    return tmp_path / "hop.pem"


def connected() -> tuple[HopProtocol, Any, StringTransport]:
    """Said in clear: nothing, and then TLS."""
    protocol = HopProtocol(cast("Any", Clock()), cast("Any", Creator()), "hop", 300)
    transport = StringTransport()
    protocol.makeConnection(transport)
    transport.unregisterProducer()
    layer = StockTlsFactory(cast("Any", Creator()), cast("Any", Clock()), is_client=True).wrap(protocol, transport)
    protocol.transport = cast("Any", layer)
    return protocol, layer, transport


@needs_library
def test_a_hop_that_asks_for_new_keys_without_end_is_cut(pem: Path) -> None:
    protocol, layer, transport = connected()
    hop = KeyUpdater(layer, transport, pem)
    hop.update(100)
    assert len(transport.value()) > 1000  # each is answered
    assert protocol.is_usable
    hop.update(5000)
    assert len(transport.value()) < MAX_UNSOLICITED + 10_000
    assert transport.disconnected
    layer.connectionLost(Failure(ConnectionLost()))
    assert protocol._lost is not None
    assert isinstance(protocol._lost.value, TooManyAnswers)
    hop.close()


@needs_library
def test_what_is_sent_to_a_hop_is_not_what_openssl_says_by_itself(pem: Path) -> None:
    protocol, layer, transport = connected()
    hop = KeyUpdater(layer, transport, pem)
    layer.write(bytes(5 * MAX_UNSOLICITED))
    assert len(transport.value()) > 5 * MAX_UNSOLICITED
    hop.update(100)
    assert protocol.is_usable
    assert not transport.disconnected
    hop.close()
