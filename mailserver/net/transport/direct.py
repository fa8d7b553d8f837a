"""A stream transport on the reactor's public interfaces alone; `direct_port` has the port that makes such transports.

Problem: Twisted's transport keeps every write until the reactor reports that the socket is writable, which it nearly always
is. That costs two changes of the epoll set and one more turn of the reactor for each answer. Its Unix
transport has no public hook for descriptors that a client passes.

Rule: a write goes straight to the socket if nothing is queued. What the socket does not take is queued in order, and pauses
the producer, as with Twisted's transport.
"""

from __future__ import annotations

from contextlib import suppress
from fcntl import ioctl
from socket import IPPROTO_TCP, SO_KEEPALIVE, SO_LINGER, SOL_SOCKET, TCP_NODELAY, socket
from struct import pack
from termios import TIOCOUTQ
from typing import Any, Final

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IPushProducer,
    IReadWriteDescriptor,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.log.events import log
from mailserver.net.transport.address import twisted_address

READ_SIZE: Final = 65536
HIGH_WATER: Final = 65536
"""Octets that may be queued before the producer is paused."""
SEND_SIZE: Final = 131072
"""Octets of the queue that are given to the socket at once."""
_RESET: Final = pack("ii", 1, 0)
_NO_RESET: Final = pack("ii", 0, 0)


@implementer(ITCPTransport, ISystemHandle, IConsumer, IPushProducer, IReadWriteDescriptor, IHalfCloseableDescriptor)
class DirectTransport:
    """One connection.

    No child process has its socket (accept4(2) with SOCK_CLOEXEC), so close() ends the connection.
    """

    connected = True
    disconnecting = False
    _aborted = False
    _ends_writing = False
    _has_ended_writing = False
    _producer: Any = None
    _is_streaming = True
    _is_paused = False
    _buffer = b""
    _offset = 0

    def __init__(self, accepted: socket, protocol: Any, peer: IAddress, reactor: Any) -> None:
        accepted.setblocking(False)
        self.socket = accepted
        self.protocol = protocol
        self.reactor = reactor
        self._peer = peer
        self._pieces: list[bytes] = []
        """What is queued after `_buffer`."""
        self._waiting = 0
        """Octets in the queue."""
        reactor.addReader(self)

    # --- What the reactor calls

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "a client's connection"

    def doRead(self) -> Any:
        """Read what has arrived; return the reason if the connection has ended."""
        try:
            data = self.socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def doWrite(self) -> Any:
        """Send from the queue; return the reason if the connection ends. When the queue is empty the producer goes on."""
        if self._aborted:
            return None
        if self._waiting:
            if self._pieces and len(self._buffer) - self._offset < SEND_SIZE:
                self._buffer = b"".join((self._buffer[self._offset :], *self._pieces))
                self._offset = 0
                self._pieces.clear()
            with memoryview(self._buffer) as octets:
                try:
                    sent = self.socket.send(octets[self._offset : self._offset + SEND_SIZE])
                except (BlockingIOError, InterruptedError):
                    return None
                except OSError:
                    return CONNECTION_LOST
            self._offset += sent
            self._waiting -= sent
            if self._waiting:
                return None
            self._buffer, self._offset = b"", 0
        self.reactor.removeWriter(self)
        if self._producer is not None and (self._is_paused or not self._is_streaming):
            self._is_paused = False
            self._producer.resumeProducing()
        elif self.disconnecting:
            return CONNECTION_DONE
        elif self._ends_writing and not self._has_ended_writing:
            self._end_writing()
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """The client has closed its side."""
        if not IHalfCloseableProtocol.providedBy(self.protocol):
            self.connectionLost(reason)
            return
        try:
            self.protocol.readConnectionLost()
        except Exception:
            log.failure("a connection ends for a fault in its half-close", event="bug")
            self.connectionLost(Failure())

    def writeConnectionLost(self, reason: Failure) -> None:
        """See IHalfCloseableDescriptor; the reactor does not call it for sockets."""
        self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol, once."""
        if not self.connected:
            return
        self.connected = False
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        self._pieces.clear()
        self._buffer, self._waiting = b"", 0
        if isinstance(reason.value, ConnectionAborted):
            with suppress(OSError):
                self.socket.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
        self.close_socket()
        protocol = self.protocol
        del self.protocol  # breaks the reference cycle
        protocol.connectionLost(reason)

    def close_socket(self) -> None:
        """Close the socket; a subclass may do it otherwise."""
        self.socket.close()

    # --- What the protocol calls

    def write(self, data: bytes) -> None:
        """Send or queue. `doWrite` reports an error, so that the protocol does not lose its connection within this call."""
        if not self.connected or self._has_ended_writing or self._aborted:
            return
        if not self._waiting and self._is_streaming:
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        if not data:
            return
        self._pieces.append(data)
        self._waiting += len(data)
        self.reactor.addWriter(self)
        if self._waiting > HIGH_WATER and self._producer is not None and self._is_streaming:
            self._is_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """See ITransport."""
        self.write(b"".join(data))

    @property
    def delivered(self) -> bool:
        """Has the client's machine acknowledged all that was written?"""
        return self.connected and not self._waiting and not any(ioctl(self.socket, TIOCOUTQ, bytes(4)))

    def loseConnection(self) -> None:
        """Close once the queue is sent; at the next turn of the reactor if it is empty."""
        if not self.connected or self.disconnecting:
            return
        self.disconnecting = True
        self.reactor.removeReader(self)
        if not self._waiting:
            self.reactor.callLater(0, self._end)

    def loseWriteConnection(self) -> None:
        """Close this side once the queue is sent."""
        self._ends_writing = True
        self.reactor.addWriter(self)

    def abortConnection(self) -> None:
        """Close by a reset; the queue is dropped."""
        if not self.connected or self._aborted:
            return
        self._aborted = True
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        self.reactor.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See IConsumer."""
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer!r}: {self._producer!r} is registered")
        if not self.connected:
            producer.stopProducing()
            return
        self._producer, self._is_streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See IConsumer."""
        self._producer, self._is_streaming, self._is_paused = None, True, False
        if self.connected and self.disconnecting and not self._waiting:
            self.reactor.callLater(0, self._end)

    def pauseProducing(self) -> None:
        """Stop reading."""
        if self.connected:
            self.reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Read again."""
        if self.connected and not self.disconnecting and not self._aborted:
            self.reactor.addReader(self)

    def stopProducing(self) -> None:
        """See IProducer."""
        self.loseConnection()

    def getPeer(self) -> Any:
        """See ITransport."""
        return self._peer

    def getHost(self) -> Any:
        """See ITransport."""
        return twisted_address(self.socket.family, self.socket.getsockname())

    def getHandle(self) -> socket:
        """The socket (ISystemHandle)."""
        return self.socket

    def getTcpNoDelay(self) -> bool:
        """See ITCPTransport."""
        return bool(self.socket.getsockopt(IPPROTO_TCP, TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ITCPTransport."""
        self.socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """See ITCPTransport."""
        return bool(self.socket.getsockopt(SOL_SOCKET, SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See ITCPTransport."""
        self.socket.setsockopt(SOL_SOCKET, SO_KEEPALIVE, enabled)

    # --- Inside

    def _end(self) -> None:
        # If something was queued meanwhile, `doWrite` closes after it.
        if self.connected and not self._waiting:
            self.connectionLost(Failure(ConnectionDone()))

    def _end_writing(self) -> None:
        self._has_ended_writing = True
        try:
            self.socket.shutdown(1)
        except OSError:
            self.reactor.callLater(0, self.connectionLost, Failure(CONNECTION_LOST))
            return
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.writeConnectionLost()


def take_connection(transport: Any, protocol: Any, reactor: Any) -> DirectTransport:
    """Move a connection from a transport of Twisted to a direct one. The protocol's own transport is what returns.

    The old transport is aborted with its descriptor; a connection ends with the last descriptor of its socket.
    """
    duplicate = transport.getHandle().dup()
    transport.protocol = _AbortedProtocol(duplicate)
    transport.abortConnection()
    return DirectTransport(duplicate, protocol, transport.getPeer(), reactor)


class _AbortedProtocol(Protocol):
    """The last protocol of a transport whose connection was moved."""

    def __init__(self, moved: socket) -> None:
        self._moved = moved

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: ARG002, B008
        """Take back the option that the abort has set, as it is that of all descriptors of the socket."""
        if self._moved.fileno() != -1:
            self._moved.setsockopt(SOL_SOCKET, SO_LINGER, _NO_RESET)
