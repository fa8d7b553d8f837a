"""Frames between the master, the zygote and the workers: a length, a count of descriptors, a body.

They travel on Unix stream sockets; descriptors go beside the first octet of their frame (SCM_RIGHTS), which the kernel
keeps in order. What the master sends is pickled, as whoever takes it trusts the master; what it takes is JSON, as it
may be root and a worker may have been taken over.
"""

from __future__ import annotations

import array
import contextlib
import json
import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.received_fds import close_line, close_passed
from mailserver.net.log.format import LINE_SYSTEM

HEADER = struct.Struct("!IH")
MAX_PASSED = 200
"""Descriptors in one frame; the kernel takes 253."""
MAX_JSON = 32 << 20
"""Octets of a frame that the master takes."""
MAX_PICKLE = 1 << 30
MAX_WAITING = 64 << 20
"""Octets that the master keeps for a worker that does not read: others may make it keep them."""
_PIECE = 1 << 16
_LAST_READS = 64
"""Of a line whose process has ended; what a socket holds is far less."""


class BadFrame(Exception):
    """The other side does not keep to the form: nothing more can be read from it."""


def to_json(body: Json) -> bytes:
    """A body for the master."""
    return json.dumps(body, separators=(",", ":")).encode()


def to_pickle(body: object) -> bytes:
    """A body from the master."""
    return pickle.dumps(body)


def from_pickle(body: bytes) -> Any:
    """A body of the master's; never call it on what came from elsewhere."""
    return pickle.loads(body)  # noqa: S301 - see above


class Decoder:
    """Octets and descriptors in, frames out; sans-IO. It owns descriptors until a frame takes them."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._data = bytearray()
        self._passed: deque[int] = deque()

    def receive(self, data: bytes, passed: Sequence[int] = ()) -> None:
        """What was read."""
        self._data += data
        self._passed.extend(passed)

    def next_frame(self) -> tuple[bytes, list[int]] | None:
        """The next whole frame and its descriptors, which are the caller's to close. Raises: BadFrame."""
        if len(self._data) < HEADER.size:
            return None
        length, count = HEADER.unpack_from(self._data)
        if length > self._longest or count > MAX_PASSED:
            raise BadFrame(f"a frame of {length} octets and {count} descriptors")
        if len(self._passed) > 2 * MAX_PASSED:
            # A read gives those of one frame at most, which may be behind another: more are counted by none.
            raise BadFrame("descriptors that no frame counts")
        end = HEADER.size + length
        if len(self._data) < end:
            return None
        if len(self._passed) < count:
            raise BadFrame("descriptors are missing")
        body = bytes(self._data[HEADER.size : end])
        del self._data[:end]
        return body, [self._passed.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close what no frame took."""
        close_passed(self._passed)
        self._passed.clear()


def _rights(passed: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] if passed else []


def read_some(line: socket.socket) -> tuple[bytes, list[int]]:
    """One read; b"" at the end. Raises: OSError."""
    space = socket.CMSG_SPACE(MAX_PASSED * array.array("i").itemsize)
    data, ancillary, flags, _address = line.recvmsg(_PIECE, space, socket.MSG_CMSG_CLOEXEC)
    passed = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            passed.frombytes(content[: len(content) - len(content) % passed.itemsize])
    if flags & socket.MSG_CTRUNC:
        close_passed(passed)
        raise BadFrame("too many descriptors")
    return data, list(passed)


def send_blocking(line: socket.socket, body: bytes, passed: Sequence[int] = ()) -> None:
    """One frame, to the end. Raises: OSError."""
    data = HEADER.pack(len(body), len(passed)) + body
    sent = line.sendmsg([data], _rights(passed))
    line.sendall(memoryview(data)[sent:])


@implementer(IReadWriteDescriptor)
class FrameSocket:
    """One end of a line, on a reactor."""

    def __init__(
        self,
        reactor: IReactorFDSet,
        line: socket.socket,
        take: Callable[[bytes, list[int]], None],
        lost: Callable[[], None],
        *,
        longest: int,
        most_waiting: int | None = None,
    ) -> None:
        """`take(body, descriptors)` for each frame, `lost()` once when the other side has gone or cannot be read.

        `most_waiting`: octets behind a frame that the other side does not take, after which the line is given up.
        """
        self._reactor = reactor
        self._line = line
        self._take = take
        self._lost = lost
        self._decoder = Decoder(longest)
        self._pending: deque[tuple[memoryview, Sequence[socket.socket], bool]] = deque()
        self._most_waiting = most_waiting
        self._queued = 0
        """Octets of the frames that wait."""
        self._open = True
        line.setblocking(False)
        reactor.addReader(self)

    @property
    def waiting(self) -> int:
        """Frames that the other side has not taken yet."""
        return len(self._pending)

    def send(self, body: bytes, passed: Sequence[socket.socket] = (), *, given: bool = False) -> None:
        """Queue a frame; lost once the line is. `given`: the sockets are closed when they are on their way."""
        if not self._open:
            _close(passed if given else ())
            return
        data = HEADER.pack(len(body), len(passed)) + body
        if self._pending and self._most_waiting is not None and self._queued + len(data) > self._most_waiting:
            _close(passed if given else ())
            self._break_off()
            return
        self._queued += len(data)
        self._pending.append((memoryview(data), passed, given))
        if len(self._pending) == 1:
            self.doWrite()
            if self._pending:
                self._reactor.addWriter(self)

    def close(self) -> None:
        """Give the line up; `lost` is not called."""
        if not self._open:
            return
        self._open = False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._give_up()
        self._decoder.close()
        close_line(self._line)

    def finish(self) -> None:
        """The other side's process has ended: take what it had said before, then give the line up."""
        for _read in range(_LAST_READS):
            if not self._open or not self._read():
                break
        self.close()

    # --- What the reactor calls

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._line.fileno()

    def logPrefix(self) -> str:
        """A name for the log."""
        return LINE_SYSTEM

    def doRead(self) -> None:
        """Take what is there."""
        self._read()

    def doWrite(self) -> None:
        """Send what waits."""
        while self._pending:
            data, passed, given = self._pending[0]
            try:
                sent = self._line.sendmsg([data], _rights([each.fileno() for each in passed]))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._break_off()
                break
            if given:
                _close(passed)
            self._queued -= sent
            if sent == len(data):
                self._pending.popleft()
            else:
                self._pending[0] = (data[sent:], (), False)
        self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """The reactor gives the descriptor up."""
        self._end()

    def _read(self) -> bool:
        """One read and its frames; was there anything?"""
        try:
            data, passed = read_some(self._line)
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, BadFrame):
            self._end()
            return False
        if not data:
            self._end()
            return False
        self._decoder.receive(data, passed)
        try:
            while self._open and (frame := self._decoder.next_frame()) is not None:
                self._take(*frame)
        except BadFrame:
            self._end()
        return True

    def _break_off(self) -> None:
        """Frames are lost: the other side must not go on without them. The read that follows finds the end."""
        self._give_up()
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def _give_up(self) -> None:
        for _data, passed, given in self._pending:
            _close(passed if given else ())
        self._pending.clear()
        self._queued = 0

    def _end(self) -> None:
        if self._open:
            self.close()
            self._lost()


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.close()
