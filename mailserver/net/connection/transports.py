"""The layers that an endpoint of Twisted puts between a connection and its socket.

`ssl:` and `TLSMemoryBIOFactory` have a TLS layer there, `haproxy:` a reader of the PROXY header. Both connect the protocol
at once. TLS calls `handshakeCompleted` later. The reader of the header calls nothing when the header has come, so it is
observed here, and so are the answers of TLS. Only public interfaces are used, but for the name of that reader's class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from cryptography import x509
from OpenSSL import SSL
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from mailserver.net.connection.proxy_header import BadHeader, read_header
from mailserver.net.transport.tls import MAX_UNSOLICITED, TooManyAnswers
from mailserver.tls.context.handshake import ServerConnection


def tls_connection(transport: object) -> SSL.Connection | None:
    """The TLS connection of a transport (ISystemHandle); None where it is not secured."""
    handle = getattr(transport, "getHandle", lambda: None)()
    return handle if isinstance(handle, SSL.Connection) else None


def certificate_of_endpoint(connection: SSL.Connection) -> x509.Certificate | None:
    """The client's certificate that the context of an `ssl:` endpoint has verified; None without one."""
    if isinstance(connection, ServerConnection) or not connection.get_verify_mode() & SSL.VERIFY_PEER:
        return None
    return connection.get_peer_certificate(as_cryptography=True)


def proxy_wrapper(transport: object) -> HAProxyProtocolWrapper | None:
    """The reader of the PROXY header between a protocol and the socket; None without one."""
    while isinstance(transport, ProtocolWrapper):
        if isinstance(transport, HAProxyProtocolWrapper):
            return transport
        transport = transport.transport
    return None


def tls_layer(transport: object) -> TLSMemoryBIOProtocol | None:
    """The TLS layer of an endpoint between a protocol and the socket; None without one."""
    while isinstance(transport, ProtocolWrapper):
        if isinstance(transport, TLSMemoryBIOProtocol):
            return transport
        transport = transport.transport
    return None


def place_of_host(transport: Any) -> str:
    """The place at which a connection arrived, for the log: "192.0.2.1:143", or the path of a Unix socket."""
    address = transport.getHost()
    host = getattr(address, "host", None)
    if host is not None:
        return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
    name = getattr(address, "name", None)
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")


class AnswerBound:
    """Bounds the answers of an endpoint's TLS layer to KeyUpdate (RFC 8446 4.6.3), which Twisted's layer does not.

    Octets that the layer sends while it reads are OpenSSL's own, unless the session has written meanwhile. A client that lets a
    session write each time and takes nothing pauses it.
    """

    def __init__(self, layer: TLSMemoryBIOProtocol, sent: Callable[[], int]) -> None:
        """`sent()`: the octets that the session has written."""
        self._layer = cast("Any", layer)
        self._lower = cast("Any", layer.transport)
        self._sent = sent
        self._unsolicited = 0
        self._written = 0
        """Octets that the layer has sent."""
        self._layer.dataReceived = self._received
        self._lower.write = self._write

    def stop(self) -> None:
        """Observe no more, which ends the cycle of references; repeating it is harmless."""
        vars(self._layer).pop("dataReceived", None)
        vars(self._lower).pop("write", None)

    def _received(self, data: bytes) -> None:
        sent, written = self._sent(), self._written
        type(self._layer).dataReceived(self._layer, data)
        if self._sent() == sent:
            self._unsolicited += self._written - written
        if self._unsolicited > MAX_UNSOLICITED:
            self.stop()
            self._layer.failVerification(Failure(TooManyAnswers("the peer has the TLS layer answer without end")))

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        type(self._lower).write(self._lower, data)


_NO_CLIENT: Final = b"PROXY UNKNOWN \r\n"
"""A header without a client, as Twisted reads it: it refuses a line without addresses, and some of version 2."""


class ProxyHeaderObserver:
    """Collects a PROXY header for its reader, and calls `complete()` behind it; `refuse(reason)` for a header that is none.

    Twisted's reader refuses a header whose first octets come alone. So it gets the header whole.
    """

    def __init__(
        self, wrapper: HAProxyProtocolWrapper, complete: Callable[[], None], refuse: Callable[[str], None]
    ) -> None:
        self._wrapper = wrapper
        self._complete = complete
        self._refuse = refuse
        self._data = b""
        wrapper.dataReceived = self._received  # type: ignore[method-assign]

    def stop(self) -> None:
        """Observe no more, which ends the cycle of references; repeating it is harmless."""
        vars(self._wrapper).pop("dataReceived", None)

    def _received(self, data: bytes) -> None:
        self._data += data
        try:
            read = read_header(self._data)
        except BadHeader as error:
            self.stop()
            self._refuse(str(error))
            return
        if read is None:
            return
        self.stop()
        data, self._data = self._data, b""
        end, client = read
        HAProxyProtocolWrapper.dataReceived(self._wrapper, data if client is not None else _NO_CLIENT + data[end:])
        self._complete()
