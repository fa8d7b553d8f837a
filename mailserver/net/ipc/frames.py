"""Frames between the master, the zygote and the workers: a length, a number of descriptors, a body.

Frames travel on Unix stream sockets. Descriptors go beside the first octet of their frame (SCM_RIGHTS), and the kernel
keeps that order. The body is pickled where the master sends it, as both sides trust the master. It is JSON where the
master receives it (`message_schema`).
"""

from __future__ import annotations

import array
import contextlib
import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.ipc.received_fds import close_descriptors, close_socket
from mailserver.net.log.format import LINE_SYSTEM

HEADER = struct.Struct("!IH")
MAX_DESCRIPTORS = 200
"""Descriptors in one frame; the kernel takes 253."""
MAX_JSON = 4 << 20
"""Octets of a frame that the master receives: the status of a worker with ten thousand certificates."""
MAX_PICKLE = 1 << 30
MAX_QUEUED = 64 << 20
"""Octets that the master queues for a worker that does not read; broadcasts of other workers may fill the queue."""
_PIECE = 1 << 16
_LAST_READS = 64
"""Reads from the socket of a process that has ended; a socket holds far less."""


class OpenFile(Protocol):
    """A socket or file whose descriptor is sent."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def close(self) -> None:
        """Close it."""


class BadFrame(Exception):
    """The peer violates the frame format: nothing more can be read from it."""


def to_pickle(body: object) -> bytes:
    """Return the body of a message from the master."""
    return pickle.dumps(body)


def from_pickle(body: bytes) -> Any:
    """Load the body of a message from the master; never call it on octets of another origin."""
    return pickle.loads(body)  # noqa: S301 - see above


class Decoder:
    """Octets and descriptors in, frames out; sans-IO. It owns the descriptors until their frame is returned."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._data = bytearray()
        self._descriptors: deque[int] = deque()

    def receive(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Add octets and descriptors of one read."""
        self._data += data
        self._descriptors.extend(descriptors)

    def next_frame(self) -> tuple[bytes, list[int]] | None:
        """Return the next whole frame and its descriptors, which the caller closes. Raises: BadFrame."""
        if len(self._data) < HEADER.size:
            return None
        length, count = HEADER.unpack_from(self._data)
        if length > self._longest or count > MAX_DESCRIPTORS:
            raise BadFrame(f"a frame of {length} octets and {count} descriptors")
        if len(self._descriptors) > 2 * MAX_DESCRIPTORS:
            # One read returns the descriptors of at most one frame, which may be queued behind another.
            raise BadFrame("more descriptors than frames have")
        end = HEADER.size + length
        if len(self._data) < end:
            return None
        if len(self._descriptors) < count:
            raise BadFrame("descriptors are missing")
        body = bytes(self._data[HEADER.size : end])
        del self._data[:end]
        return body, [self._descriptors.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close the descriptors that no frame has."""
        close_descriptors(self._descriptors)
        self._descriptors.clear()


def _rights(descriptors: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []


def read_some(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Read once; b"" at the end. Raises: OSError, BadFrame."""
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, flags, _address = sock.recvmsg(_PIECE, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if flags & socket.MSG_CTRUNC:
        close_descriptors(descriptors)
        raise BadFrame("too many descriptors")
    return data, list(descriptors)


def send_blocking(sock: socket.socket, body: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one whole frame. Raises: OSError."""
    data = HEADER.pack(len(body), len(descriptors)) + body
    sent = sock.sendmsg([data], _rights(descriptors))
    sock.sendall(memoryview(data)[sent:])


@implementer(IReadWriteDescriptor)
class FrameSocket:
    """A socket for frames, on a reactor."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        sock: socket.socket,
        receive: Callable[[bytes, list[int]], None],
        lost: Callable[[], None],
        *,
        longest: int,
        max_queued: int | None = None,
    ) -> None:
        """Call `receive(body, descriptors)` for each frame, and `lost()` once when the peer has gone or violates the format.

        `max_queued`: octets behind a frame that the peer does not read; beyond them the connection is closed.
        """
        self._reactor = reactor
        self._socket = sock
        self._receive = receive
        self._lost = lost
        self._decoder = Decoder(longest)
        self._pending: deque[tuple[memoryview, Sequence[OpenFile], bool]] = deque()
        self._max_queued = max_queued
        self._queued = 0
        """Octets of the queued frames."""
        self._open = True
        sock.setblocking(False)
        reactor.addReader(self)

    @property
    def waiting(self) -> int:
        """Number of frames that the peer has not read yet."""
        return len(self._pending)

    def send(self, body: bytes, sockets: Sequence[OpenFile] = (), *, close: bool = False) -> None:
        """Queue a frame; it is dropped once the connection is closed. `close`: close the sockets when they are sent."""
        if not self._open:
            _close(sockets if close else ())
            return
        data = HEADER.pack(len(body), len(sockets)) + body
        if self._pending and self._max_queued is not None and self._queued + len(data) > self._max_queued:
            _close(sockets if close else ())
            self._break_off()
            return
        self._queued += len(data)
        self._pending.append((memoryview(data), sockets, close))
        if len(self._pending) == 1:
            self.doWrite()
            if self._pending:
                self._reactor.addWriter(self)

    def close(self) -> None:
        """Close the connection; `lost` is not called."""
        if not self._open:
            return
        self._open = False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._drop_queue()
        self._decoder.close()
        close_socket(self._socket)

    def finish(self) -> None:
        """Receive what a process sent before its end, then close the connection."""
        for _read in range(_LAST_READS):
            if not self._open or not self._read():
                break
        self.close()

    # --- For the reactor

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Name in the log."""
        return LINE_SYSTEM

    def doRead(self) -> None:
        """Read once."""
        self._read()

    def doWrite(self) -> None:
        """Send queued frames."""
        while self._pending:
            data, sockets, close = self._pending[0]
            try:
                sent = self._socket.sendmsg([data], _rights([each.fileno() for each in sockets]))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._break_off()
                break
            if close:
                _close(sockets)
            self._queued -= sent
            if sent == len(data):
                self._pending.popleft()
            else:
                self._pending[0] = (data[sent:], (), False)
        self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """Handle a failed descriptor."""
        self._end()

    def _read(self) -> bool:
        """Read once and receive its frames. Return whether there was anything."""
        try:
            data, descriptors = read_some(self._socket)
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, BadFrame):
            self._end()
            return False
        if not data:
            self._end()
            return False
        self._decoder.receive(data, descriptors)
        try:
            while self._open and (frame := self._decoder.next_frame()) is not None:
                self._receive(*frame)
        except BadFrame:
            self._end()
        return True

    def _break_off(self) -> None:
        """Shut down after lost frames: the peer must not go on without them. The next read finds the end."""
        self._drop_queue()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _drop_queue(self) -> None:
        for _data, sockets, close in self._pending:
            _close(sockets if close else ())
        self._pending.clear()
        self._queued = 0

    def _end(self) -> None:
        if self._open:
            self.close()
            self._lost()


def _close(sockets: Sequence[OpenFile]) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.close()
