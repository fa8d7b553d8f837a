"""Which transports a process serves with: the faster ones where the installed libraries are known, else Twisted's own.

The faster ones use names that Twisted and pyOpenSSL keep private. Their sources were compared for the versions that are listed
here (`tests/net/test_pinned_sources.py`); any other version may have changed what is behind such a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from socket import socket
from typing import Any, Final

import OpenSSL
from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol

import twisted
from mailserver.config.kinds import TransportKind
from mailserver.net.fast.reactor_turn import dispatch_directly, prefer
from mailserver.net.transport.direct import take_connection
from mailserver.net.transport.direct_port import DirectPort
from mailserver.net.transport.stock import ListeningPort, Transports, set_options, stock_transports

TWISTED: Final = frozenset({"26.10.0"})
PYOPENSSL: Final = frozenset({"26.4.0"})
"""The versions whose sources were compared."""

NAMES_OF_REACTOR: Final = (
    "_disconnectSelectable",
    "_doReadOrWrite",
    "_poller",
    "_selectables",
    "threadCallQueue",
)
"""Of an `EPollReactor`, for `reactor_turn`."""
NAMES_OF_LAYER: Final = (
    "_aborted",
    "_bufferedWrite",
    "_checkHandshakeStatus",
    "_flushReceiveBIO",
    "_flushSendBIO",
    "_handshakeDone",
    "_lostTLSConnection",
    "_shutdownTLS",
    "_tlsShutdownFinished",
    "_unbufferPendingWrites",
    "_write",
)
"""Of `TLSMemoryBIOProtocol`, for `tls`."""
NAMES_OF_CONNECTION: Final = ("_from_ssl", "_handle_bio_errors", "_into_ssl", "_raise_ssl_error", "_ssl")
"""Of `OpenSSL.SSL.Connection`."""
NAMES_OF_LIB: Final = (
    "BIO_read",
    "BIO_write",
    "SSL_ERROR_WANT_READ",
    "SSL_do_handshake",
    "SSL_get_error",
    "SSL_read",
    "SSL_write",
)
"""Of pyOpenSSL's bindings."""


def choose_transports(wanted: TransportKind, reactor: Any) -> Transports:
    """Return what `[server] transport` asks for; with "auto", the fast ones if they are sure to work."""
    if wanted == "stock":
        return stock_transports('transport: stock, as the configuration says transport = "stock"')
    if (why := _why_not_fast(reactor)) is not None:
        return stock_transports(f"transport: stock, at the price of more processor time: {why}")
    from mailserver.net.fast.tls import FastTlsFactory  # noqa: PLC0415 - with other versions it may fail

    return Transports(
        name="fast",
        line=f"transport: fast: Twisted {twisted.__version__} and pyOpenSSL {OpenSSL.__version__} are on its list",
        prepare=dispatch_directly,
        listen=_listen_directly,
        take_connection=_take_preferred,
        tls_factory=FastTlsFactory,
    )


def _why_not_fast(reactor: Any) -> str | None:
    for name, version, known in (
        ("Twisted", twisted.__version__, TWISTED),
        ("pyOpenSSL", OpenSSL.__version__, PYOPENSSL),
    ):
        if version not in known:
            return f"{name} {version} is not on the list of the fast one ({', '.join(sorted(known))})"
    missing = [*_missing_for_tls(), *_missing_for_turn(reactor)]
    return f"this installation is without {', '.join(missing)}" if missing else None


def _missing_for_tls() -> list[str]:
    connection = SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD), None)
    lib = getattr(getattr(OpenSSL, "_util", None), "lib", None)
    return [
        *_missing(TLSMemoryBIOProtocol, "twisted.protocols.tls.TLSMemoryBIOProtocol", NAMES_OF_LAYER),
        *_missing(connection, "OpenSSL.SSL.Connection", NAMES_OF_CONNECTION),
        *_missing(lib, "OpenSSL._util.lib", NAMES_OF_LIB),
    ]


def _missing_for_turn(reactor: Any) -> list[str]:
    from twisted.internet.epollreactor import EPollReactor  # noqa: PLC0415 - a zygote loads no reactor

    if type(reactor) is not EPollReactor:
        return []  # its turn stays as it is
    return _missing(reactor, "twisted.internet.epollreactor.EPollReactor", NAMES_OF_REACTOR)


def _missing(thing: object, owner: str, names: Iterable[str]) -> list[str]:
    return [f"{owner}.{name}" for name in names if not hasattr(thing, name)]


def _take_preferred(transport: Any, protocol: Any, reactor: Any) -> Any:
    taken = take_connection(transport, protocol, reactor)
    prefer(taken)
    return taken


def _listen_directly(listening: socket, factory: Any, reactor: Any) -> ListeningPort:
    set_options(listening)
    port = DirectPort(listening, factory, reactor)
    port.startListening()
    return port
