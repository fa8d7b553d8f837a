"""The PROXY protocol, version 1 and 2, at the listeners of the service (`proxy_from`).

A connection from a trusted network must begin with a header, which names the client. One from elsewhere is served as it
is, so that no client can claim another's address. Until the header has come the connection counts for no address, but among
all, and is evicted for others as one that has not logged in. The header comes before TLS. Once it is read, the transport is given to
the mail protocol, as if the client had connected itself, so that STARTTLS and half-closing work. (Twisted's own wrapper
stays between the two; `net.connection.transports` copes with it where an endpoint has it.)
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, cast

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from mailserver.errors import ConnectionLost
from mailserver.net.connection.acceptance import MIN_LOGIN_TIME
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.connection.proxy_header import HEADER_TIME, BadHeader, read_header
from mailserver.net.log.events import log_event
from mailserver.net.transport.address import address_of


class HeaderReader(Protocol):
    """Reads one header, then gives the transport to the mail protocol."""

    def __init__(
        self, factory: Factory, address: IAddress | None, clock: IReactorTime, counts: ConnectionCounts
    ) -> None:
        self._factory = factory
        self._address = address
        self._clock = clock
        self._counts = counts
        self._is_counted = False
        self._since = clock.seconds()
        self._data = b""
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Count it, and start the timer of HEADER_TIME."""
        self._is_counted = self._counts.open(None, self)
        if not self._is_counted:
            self._refuse("too many connections")
            return
        self._timer = self._clock.callLater(HEADER_TIME, self._refuse, "no header in time")

    def dataReceived(self, data: bytes) -> None:
        """Take octets of the proxy, and the client's behind them."""
        self._data += data
        try:
            read = read_header(self._data)
        except BadHeader as error:
            self._refuse(str(error))
            return
        if read is None:
            return
        end, address = read
        rest, self._data = self._data[end:], b""
        self._end()
        transport = cast("Any", self.transport)
        protocol: Any = self._factory.buildProtocol(address or self._address)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: ARG002, B008
        """Count it no more: the connection has gone before its header."""
        self._end()

    def evict(self) -> bool:
        """See `connection_limits.EvictableConnection`."""
        if self._clock.seconds() - self._since < MIN_LOGIN_TIME:
            return False
        self._end()
        self._refuse("another needs its place, and no header has come")
        return True

    @property
    def client(self) -> None:
        """See `connection_limits.EvictableConnection`: the header names the client."""

    def end_banned(self) -> None:
        """See `connection_limits.EvictableConnection`."""
        self._end()
        cast("Any", self.transport).abortConnection()

    def _refuse(self, reason: str) -> None:
        self._data = b""
        event, peer = "proxy-header-refused", address_of(self._address)[0]
        if (unsaid := self._counts.count_refused_request(peer, event, self._clock.seconds())) is not None:
            log_event(
                event, peer=getattr(self._address, "host", ""), reason=reason, **({"unsaid": unsaid} if unsaid else {})
            )
        cast("Any", self.transport).abortConnection()

    def _end(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._counts.close(None, None, self)
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class ProxyProtocolFactory(Factory):
    """Makes protocols with a `HeaderReader` in front where the peer is a trusted proxy."""

    noisy = False

    def __init__(self, factory: Factory, trusted: Sequence[str], clock: IReactorTime, counts: ConnectionCounts) -> None:
        self._factory = factory
        self._clock = clock
        self._counts = counts
        self._trusted: list[IPv4Network | IPv6Network] = [ip_network(network, strict=False) for network in trusted]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make the protocol of a client, or of a proxy."""
        host = getattr(addr, "host", None)
        if host is not None:
            peer = ip_address(host.partition("%")[0])
            if any(peer in network for network in self._trusted):
                return HeaderReader(self._factory, addr, self._clock, self._counts)
        return self._factory.buildProtocol(addr)
