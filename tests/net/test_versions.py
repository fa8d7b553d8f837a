"""Which transports are chosen, and what the start says of it."""

from __future__ import annotations

import imaplib
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import OpenSSL
import pytest
from twisted.internet import epollreactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock

import twisted
from mailserver.net.fast import versions
from mailserver.net.fast.tls import FastTlsFactory
from mailserver.net.fast.versions import (
    NAMES_OF_CONNECTION,
    NAMES_OF_LAYER,
    NAMES_OF_LIB,
    NAMES_OF_REACTOR,
    choose_transports,
)
from mailserver.net.transport.tls import StockTlsFactory
from tests.server import ROOT, Server


def test_known_versions_get_the_fast_ones() -> None:
    chosen = choose_transports("auto", Clock())
    assert chosen.name == "fast"
    assert chosen.tls_factory is FastTlsFactory
    assert (
        chosen.line
        == f"transport: fast: Twisted {twisted.__version__} and pyOpenSSL {OpenSSL.__version__} are on its list"
    )


def test_stock_is_always_had() -> None:
    chosen = choose_transports("stock", Clock())
    assert chosen.name == "stock"
    assert chosen.tls_factory is StockTlsFactory
    assert 'transport = "stock"' in chosen.line


@pytest.mark.parametrize(("module", "name"), [(twisted, "Twisted"), (OpenSSL, "pyOpenSSL")])
def test_another_version_gets_the_stock_ones(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__version__", "99.9.0")
    chosen = choose_transports("auto", Clock())
    assert chosen.name == "stock"
    assert f"{name} 99.9.0 is not on the list of the fast one" in chosen.line


@pytest.mark.parametrize("name", NAMES_OF_LAYER)
def test_a_name_of_the_layer_that_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {other: None for other in NAMES_OF_LAYER if other != name}
    monkeypatch.setattr(versions, "TLSMemoryBIOProtocol", SimpleNamespace(**kept))
    _lacks(f"twisted.protocols.tls.TLSMemoryBIOProtocol.{name}")


@pytest.mark.parametrize("name", NAMES_OF_LIB)
def test_a_name_of_the_bindings_that_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {other: None for other in NAMES_OF_LIB if other != name}
    monkeypatch.setattr(OpenSSL, "_util", SimpleNamespace(lib=SimpleNamespace(**kept)))
    _lacks(f"OpenSSL._util.lib.{name}")


@pytest.mark.parametrize("name", NAMES_OF_CONNECTION)
def test_a_name_of_the_connection_that_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SimpleNamespace(**{other: None for other in NAMES_OF_CONNECTION if other != name})
    monkeypatch.setattr(
        versions,
        "SSL",
        SimpleNamespace(TLS_SERVER_METHOD=0, Context=lambda _method: None, Connection=lambda *_arguments: kept),
    )
    _lacks(f"OpenSSL.SSL.Connection.{name}")


@pytest.mark.parametrize("name", NAMES_OF_REACTOR)
def test_a_name_of_the_reactor_that_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reactor:
        def __init__(self) -> None:
            for other in NAMES_OF_REACTOR:
                if other != name:
                    setattr(self, other, None)

    monkeypatch.setattr(epollreactor, "EPollReactor", Reactor)
    _lacks(f"twisted.internet.epollreactor.EPollReactor.{name}", Reactor())


def _lacks(name: str, reactor: object = None) -> None:
    chosen = choose_transports("auto", reactor)
    assert chosen.name == "stock"
    assert f"this installation is without {name}" in chosen.line


def test_the_reactor_of_the_service_has_all() -> None:
    reactor = EPollReactor()
    try:
        assert choose_transports("auto", reactor).name == "fast"
    finally:
        reactor.removeAll()


SITE = """
import twisted
twisted.__version__ = "99.9.0"
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_with_another_version_serves_by_stock_transports(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.server.TRANSPORT", "auto")
    server = Server(tmp_path / "server", workers=workers)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    server.extra["PYTHONPATH"] = f"{tmp_path / 'site'}:{ROOT}"
    with server:
        assert server.log.count("transport: stock") == 1
        assert "Twisted 99.9.0 is not on the list of the fast one" in server.log
        user, password = server.user_of("example.test")
        context = ssl.create_default_context(cafile=str(server.ca))
        with imaplib.IMAP4_SSL("localhost", server.port("imaps"), ssl_context=context, timeout=30) as client:
            client.login(user, password)
            assert client.select("INBOX")[0] == "OK"
