"""The transport and the port of public interfaces, on real sockets with a reactor that does nothing by itself."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import pytest
from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from mailserver.config.model import Limits
from mailserver.net.transport.direct import DirectTransport, take_connection
from mailserver.net.transport.direct_port import AT_ONCE, LOG_INTERVAL, PAUSE, DirectPort
from mailserver.net.transport.stock import listen_by_twisted, set_options


class Reactor:
    """Who waits for what."""

    def __init__(self) -> None:
        self.readers: set[object] = set()
        self.writers: set[object] = set()
        self.later: list[Any] = []
        self.now = 0.0

    def addReader(self, reader: object) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: object) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: object) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:
        self.writers.discard(writer)

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, function: Any, *arguments: Any) -> None:
        assert delay in {0, PAUSE}
        self.later.append(partial(function, *arguments))


class Producer:
    """What the transport told it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class World:
    """One connection, both ends."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname(), 30)
            accepted, address = listener.accept()
        self.reactor = Reactor()
        self.transport: Any = DirectTransport(accepted, Protocol(), IPv4Address("TCP", *address), self.reactor)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.client.close()
    if made.transport.connected:
        made.transport.socket.close()


def read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        assert piece
        data += piece
    return data


def test_a_write_is_sent_without_the_reactor(world: World) -> None:
    world.transport.write(b"one")
    world.transport.write(b"two")
    assert read(world.client, 6) == b"onetwo"
    assert not world.reactor.writers


def test_what_the_socket_does_not_take_waits_in_order_and_pauses_the_producer(world: World) -> None:
    producer = Producer()
    world.transport.registerProducer(cast("Any", producer), True)
    text = bytes(range(256)) * 40_000
    world.transport.write(text)
    assert world.reactor.writers == {world.transport}
    assert producer.told == ["pause"]
    world.transport.write(b"the end")  # must not overtake what waits
    received = b""
    while world.transport in world.reactor.writers:
        received += world.client.recv(1 << 20)
        world.transport.doWrite()
    expected = text + b"the end"
    assert received + read(world.client, len(expected) - len(received)) == expected
    assert producer.told[-2:] == ["pause", "resume"]


def test_a_lost_connection_is_left_to_the_reactor(world: World) -> None:
    world.transport.socket.shutdown(socket.SHUT_WR)
    world.transport.write(b"lost")
    assert world.reactor.writers == {world.transport}
    assert world.transport.doWrite() is not None


class Greeting(Protocol):
    fails = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        if self.fails:
            raise ValueError("nobody can be greeted")


class Greeters(Factory):
    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.protocols: list[Protocol] = []
        self.fails = False

    def buildProtocol(self, addr: Any) -> Protocol | None:
        if self.fails:
            raise ValueError("nobody can be greeted")
        self.addresses.append(addr)
        self.protocols.append(Greeting())
        return self.protocols[-1]


def listening(host: str = "127.0.0.1") -> Any:
    opened = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    set_options(opened)
    port = DirectPort(opened, Greeters(), Reactor())
    port.startListening()
    return port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_makes_such_connections(host: str) -> None:
    port = listening(host)
    with port.socket, socket.create_connection(port.socket.getsockname()[:2], 30) as client:
        port.doRead()
        assert client.recv(100) == b"hello"
        assert [address.host for address in port.factory.addresses] == [host]
        assert port.sessionno == 1
        port.doRead()  # nobody else
        assert port.sessionno == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_those_who_wait_are_taken_in_one_turn_but_not_without_bound(host: str) -> None:
    """One in a turn would be few where each turn has something to do for hundreds."""
    port = listening(host)
    with port.socket, contextlib.ExitStack() as stack:
        for _ in range(2 * AT_ONCE + 1):
            stack.enter_context(socket.create_connection(port.socket.getsockname()[:2], 30))
        for taken in (AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1):
            port.doRead()
            assert len(port.factory.protocols) == taken


def test_twisteds_port_takes_no_more_of_them() -> None:
    """By itself it would accept a hundred, and twenty more in each turn of a flood."""
    opened = socket.create_server(("127.0.0.1", 0))
    opened.setblocking(False)
    address = opened.getsockname()
    reactor = SelectReactor()
    port: Any = listen_by_twisted(opened, Greeters(), reactor)
    with contextlib.ExitStack() as stack:
        for _ in range(2 * AT_ONCE + 1):
            stack.enter_context(socket.create_connection(address, 30))
        for taken in (AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 1):
            port.doRead()
            assert len(port.factory.protocols) == taken
        for protocol in port.factory.protocols:
            protocol.transport.connectionLost(Failure(ConnectionDone()))
        port.connectionLost(Failure(ConnectionDone()))


def test_those_who_have_gone_unseen_do_not_fill_the_limit_of_their_address_for_twenty() -> None:
    assert Limits().unauthenticated_per_address > 20 + 2 * AT_ONCE


def test_a_port_that_is_closed_by_whom_it_serves_takes_nobody_else() -> None:
    port = listening()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(port.socket.getsockname(), 30)) for _ in range(2)]
        build = port.factory.buildProtocol

        def build_last(address: Any) -> Any:
            port.connectionLost(Failure(ConnectionDone()))
            return build(address)

        port.factory.buildProtocol = build_last
        port.doRead()
        assert len(port.factory.protocols) == 1
        assert clients[0].recv(100) == b"hello"


def test_they_do_not_wait_to_send_small_pieces_and_look_whether_a_silent_client_is_there() -> None:
    port = listening()
    with port.socket, socket.create_connection(port.socket.getsockname(), 30):
        port.doRead()
    made = port.factory.protocols[0].transport
    assert type(made) is DirectTransport
    assert made.getTcpNoDelay()
    assert made.getTcpKeepAlive()
    made.socket.close()


def test_a_client_that_cannot_be_served_is_closed_and_the_next_one_served() -> None:
    port = listening()
    with port.socket, socket.create_connection(port.socket.getsockname(), 30) as first:
        port.factory.fails = True
        port.doRead()
        assert first.recv(100) == b""
        port.factory.fails = False
        with socket.create_connection(port.socket.getsockname(), 30) as second:
            port.doRead()
            assert second.recv(100) == b"hello"


def test_a_client_that_is_served_no_more_after_its_first_words_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    port = listening()
    with port.socket, socket.create_connection(port.socket.getsockname(), 30) as client:
        monkeypatch.setattr(Greeting, "fails", True)
        port.doRead()
        (cut,) = port.reactor.later
        cut()
        assert client.recv(100) == b"hello"
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_without_descriptors_nobody_is_taken_and_the_port_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    port = listening()

    class Full:
        """As long as the port keeps its reserved descriptor."""

        def __init__(self, opened: socket.socket) -> None:
            self.opened = opened
            self.tried = 0

        def accept(self) -> object:
            self.tried += 1
            if self.tried == 1:
                raise OSError(errno.EMFILE, "too many open files")
            return self.opened.accept()

    with port.socket as opened, socket.create_connection(opened.getsockname(), 30) as first:
        monkeypatch.setattr(port, "socket", Full(opened))
        port.doRead()
        assert port.factory.protocols == []
        assert first.recv(100) == b"", "one that is left waiting would keep the reactor busy"
        monkeypatch.setattr(port, "socket", opened)
        with socket.create_connection(opened.getsockname(), 30) as second:
            port.doRead()
            assert second.recv(100) == b"hello"


def test_a_flood_without_descriptors_does_not_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    port = listening()

    class Full:
        """Only what the port accepts with its reserved descriptor succeeds."""

        def accept(self) -> object:
            nonlocal tried
            tried += 1
            if tried % 2:
                raise OSError(errno.EMFILE, "too many open files")
            return (socket.socket(), None)

    tried = 0
    with port.socket, monkeypatch.context() as full, capturedLogs() as events:
        full.setattr(port, "socket", Full())
        for _ in range(10):
            port.doRead()
        port.reactor.now += LOG_INTERVAL
        port.doRead()
    assert [event["unsaid"] for event in events] == [0, 9]
    port.stopListening()


def test_a_port_without_its_reserved_descriptor_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread was faster: a client that waits must not have the reactor turn without end."""
    port = listening()

    class Full:
        def accept(self) -> object:
            raise OSError(errno.EMFILE, "too many open files")

        def fileno(self) -> int:
            return opened.fileno()

    with port.socket as opened, socket.create_connection(opened.getsockname(), 30) as client:
        with monkeypatch.context() as full:
            full.setattr(port, "socket", Full())
            port.doRead()
        assert port not in port.reactor.readers
        [resume] = port.reactor.later
        resume()
        assert port in port.reactor.readers
        assert port._reserved != -1, "it is reserved again for the next time"
        port.doRead()
        assert client.recv(100) == b"hello"
    port.stopListening()


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH])
def test_a_connection_that_failed_before_it_was_accepted_leaves_the_port_and_the_next_client(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accept(2) may report a network error of the connection; an exception would have the reactor end the port."""
    port = listening()

    class Failing:
        """The first connection has failed."""

        def __init__(self, opened: socket.socket) -> None:
            self.opened = opened
            self.has_failed = False

        def accept(self) -> object:
            if not self.has_failed:
                self.has_failed = True
                raise OSError(number, "the connection failed")
            return self.opened.accept()

        def fileno(self) -> int:
            return self.opened.fileno()

    with port.socket as opened, socket.create_connection(opened.getsockname(), 30) as client:
        monkeypatch.setattr(port, "socket", Failing(opened))
        port.doRead()
        assert client.recv(100) == b"hello"


def test_what_was_written_is_delivered_when_the_client_has_acknowledged_it(world: World) -> None:
    assert world.transport.delivered
    world.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    world.client.settimeout(1)

    def take_all() -> None:
        with contextlib.suppress(TimeoutError):
            while world.client.recv(1 << 20):
                pass

    with contextlib.suppress(BlockingIOError):
        while True:
            world.transport.socket.send(b"x" * 65536)  # until neither machine takes more
    assert not world.transport.delivered, "the machines have it, and the client's has not acknowledged all"
    world.transport.write(b"x")
    assert world.reactor.writers
    take_all()
    assert not world.transport.delivered, "some waits here"
    while world.reactor.writers:
        world.transport.doWrite()
    take_all()
    assert world.transport.delivered


class Ending(Protocol):
    ends = 0

    def connectionLost(self, reason: object = None) -> None:
        self.ends += 1


def test_a_connection_with_nothing_to_send_ends_at_the_next_turn(world: World) -> None:
    protocol = world.transport.protocol = Ending()
    world.transport.write(b"* BYE\r\n")
    world.transport.loseConnection()
    world.transport.loseConnection()
    assert (protocol.ends, world.reactor.writers) == (0, set())
    (end,) = world.reactor.later
    end()
    assert protocol.ends == 1
    assert world.client.recv(100) == b"* BYE\r\n"
    assert world.client.recv(100) == b""
    end()
    assert protocol.ends == 1


def test_what_waits_is_sent_before_the_end(world: World) -> None:
    world.transport.write(bytes(10_000_000))
    world.transport.loseConnection()
    assert world.reactor.writers == {world.transport}
    assert world.reactor.later == []


def test_what_is_written_behind_the_end_and_waits_is_sent(world: World) -> None:
    """As with Twisted's own transports."""
    protocol = world.transport.protocol = Ending()
    world.transport.loseConnection()
    world.transport.write(bytes(10_000_000))
    for end in world.reactor.later:
        end()
    assert (protocol.ends, world.reactor.writers) == (0, {world.transport})
    received = 0
    while (result := world.transport.doWrite()) is None:
        received += len(world.client.recv(1 << 20))
    world.transport.connectionLost(Failure(result))
    while data := world.client.recv(1 << 20):
        received += len(data)
    assert received == 10_000_000


class Hearing(Greeting):
    heard = b""
    ended: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.ended = reason


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionAborted()])
def test_the_end_is_told_once_and_closes_the_socket(world: World, reason: Exception) -> None:
    told: list[Failure] = []
    producer = Producer()
    world.transport.protocol = Hearing()
    world.transport.protocol.connectionLost = told.append  # type: ignore[method-assign]
    world.transport.registerProducer(cast("Any", producer), True)
    world.reactor.addWriter(world.transport)
    failure = Failure(reason)
    world.transport.connectionLost(failure)
    world.transport.connectionLost(failure)
    assert told == [failure]
    assert producer.told == ["stop"]
    assert not world.reactor.writers
    if isinstance(reason, ConnectionAborted):
        with pytest.raises(ConnectionResetError):
            world.client.recv(1)
    else:
        assert world.client.recv(1) == b""


def test_a_connection_of_twisteds_transport_is_moved_whole() -> None:
    """The old transport's abort closes its descriptor alone, and sets nothing that stays."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), 30)
        far, _address = listener.accept()
    reactor = Reactor()
    old = tcp.Server(near, Protocol(), near.getpeername(), cast("Any", None), 1, cast("Any", reactor))
    protocol = Hearing()
    moved = take_connection(old, protocol, reactor)
    for call in reactor.later:
        call()
    protocol.makeConnection(moved)
    with far:
        assert near.fileno() == -1
        assert moved.socket.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == bytes(8)
        assert moved.getPeer().port == far.getsockname()[1]
        moved.write(b" there")
        assert read(far, 11) == b"hello there"
        far.sendall(b"greeting")
        moved.doRead()
        assert protocol.heard == b"greeting"
        moved.loseConnection()
        reactor.later[-1]()
        assert far.recv(100) == b""
        assert protocol.ended is not None
