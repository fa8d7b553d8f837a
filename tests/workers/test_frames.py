"""Frames: whatever way they are cut, and whatever a side that has been taken over says."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.net.ipc.frames import (
    HEADER,
    MAX_DESCRIPTORS,
    BadFrame,
    Decoder,
    FrameSocket,
    read_some,
    send_blocking,
)
from tests.live.client import eventually


class Reactor:
    def __init__(self) -> None:
        self.readers: set[object] = set()
        self.writers: set[object] = set()

    def addReader(self, one: object) -> None:
        self.readers.add(one)

    def addWriter(self, one: object) -> None:
        self.writers.add(one)

    def removeReader(self, one: object) -> None:
        self.readers.discard(one)

    def removeWriter(self, one: object) -> None:
        self.writers.discard(one)


def copies_of(one: socket.socket) -> int:
    """How many descriptors of this process are this socket; those that earlier tests left are none of them."""
    known = os.fstat(one.fileno())
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the list's own descriptor, closed by now
            found += os.path.samestat(os.fstat(int(name)), known)
    return found


@given(st.lists(st.binary(max_size=50), max_size=6), st.lists(st.integers(1, 20), min_size=1))
def test_any_cut_gives_the_same_frames(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(HEADER.pack(len(body), 0) + body for body in bodies)
    decoder, found, position, index = Decoder(50), [], 0, 0
    while position < len(data):
        size = cuts[index % len(cuts)]
        decoder.receive(data[position : position + size])
        position, index = position + size, index + 1
        while (frame := decoder.next_frame()) is not None:
            found.append(frame)
    assert found == [(body, []) for body in bodies]


@pytest.mark.parametrize("header", [HEADER.pack(51, 0), HEADER.pack(1, MAX_DESCRIPTORS + 1)])
def test_a_frame_that_is_too_long_is_refused_by_its_header(header: bytes) -> None:
    decoder = Decoder(50)
    decoder.receive(header)
    with pytest.raises(BadFrame):
        decoder.next_frame()


def test_descriptors_that_do_not_come_are_the_end() -> None:
    decoder = Decoder(50)
    decoder.receive(HEADER.pack(1, 1) + b"x")
    with pytest.raises(BadFrame):
        decoder.next_frame()


def test_descriptors_that_no_frame_counts_do_not_pile_up() -> None:
    decoder = Decoder(50)

    def flood() -> None:
        for _ in range(10):
            decoder.receive(HEADER.pack(1, 0) + b"x", [os.dup(0) for _ in range(MAX_DESCRIPTORS)])
            assert decoder.next_frame() == (b"x", [])

    try:
        with pytest.raises(BadFrame):
            flood()
    finally:
        held = len(decoder._descriptors)
        decoder.close()
    assert held <= 3 * MAX_DESCRIPTORS


def test_the_descriptors_of_the_next_frame_may_come_with_this_one() -> None:
    decoder = Decoder(50)
    first, second = HEADER.pack(1, 0) + b"a", HEADER.pack(1, 2) + b"b"
    passed = [os.dup(0), os.dup(0)]
    decoder.receive(first + second, passed)
    assert decoder.next_frame() == (b"a", [])
    assert decoder.next_frame() == (b"b", passed)
    for number in passed:
        os.close(number)


def test_descriptors_without_frames_are_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    reactor, ends = Reactor(), []
    line = FrameSocket(reactor, other, lambda *_frame: None, lambda: ends.append(1), longest=1 << 20)
    one.send(HEADER.pack(1 << 20, 0))
    for _ in range(30):
        if not ends:
            socket.send_fds(one, [b"x"], [one.fileno()] * 100)
            line.doRead()
    assert ends == [1]
    eventually(lambda: other.fileno() == -1 and copies_of(one) == 1)  # threads close them, so that nobody waits


def test_sockets_that_were_given_away_are_closed_where_the_line_is_gone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    one, other = pair
    line = FrameSocket(Reactor(), one, lambda *_frame: None, lambda: None, longest=10)
    other.close()
    given, rest = socket.socketpair()
    with rest:
        line.send(b"body", (given,), close=True)
        assert given.fileno() == -1
    line.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_descriptors_come_with_their_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    reading, writing = os.pipe()
    send_blocking(one, b"first")
    send_blocking(one, b"second", [writing])
    os.close(writing)
    decoder = Decoder(100)
    frames = []
    while len(frames) < 2:
        decoder.receive(*read_some(other))
        while (frame := decoder.next_frame()) is not None:
            frames.append(frame)
    assert frames[0] == (b"first", [])
    body, (passed,) = frames[1]
    assert body == b"second"
    os.write(passed, b"x")
    os.close(passed)
    assert os.read(reading, 10) == b"x"
    os.close(reading)


def test_a_line_that_is_not_read_holds_what_waits_and_loses_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    reactor, got = Reactor(), []
    line = FrameSocket(reactor, one, lambda *_frame: None, lambda: None, longest=1 << 20)
    bodies = [os.urandom(100_000) for _ in range(20)]
    for body in bodies:
        line.send(body)
    assert reactor.writers == {line}
    assert line.waiting > 10
    reader = FrameSocket(reactor, other, lambda body, _passed: got.append(body), lambda: None, longest=1 << 20)
    for _ in range(1000):
        line.doWrite()
        reader.doRead()
    assert got == bodies
    assert not reactor.writers


def test_who_does_not_read_is_given_up_before_much_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    reactor, ends = Reactor(), []
    line = FrameSocket(
        reactor, one, lambda *_frame: None, lambda: ends.append(1), longest=10, max_queued=10_000_000
    )  # fmt: skip
    line.send(bytes(20_000_000))
    assert line.waiting == 1, "one is sent however long it is"
    while line.waiting:
        other.recv(1 << 20)
        line.doWrite()
    for _ in range(100):
        line.send(bytes(1_000_000))
    assert line.waiting == 0
    line.doRead()
    assert ends == [1]


def test_who_reads_is_sent_more_than_may_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    reactor, got, ends = Reactor(), [], []
    line = FrameSocket(reactor, one, lambda *_frame: None, lambda: ends.append(1), longest=10, max_queued=1_000_000)
    reader = FrameSocket(reactor, other, lambda body, _passed: got.append(body), lambda: None, longest=1 << 20)
    for _ in range(100):
        line.send(bytes(100_000))
        for _ in range(4):
            line.doWrite()
            reader.doRead()
    for _ in range(1000):
        line.doWrite()
        reader.doRead()
    assert len(got) == 100
    assert not ends


def test_a_frame_that_cannot_be_sent_is_the_end_of_the_line(pair: tuple[socket.socket, socket.socket]) -> None:
    """What waited behind it is lost, so that nobody must go on as if it had come."""
    one, other = pair
    reactor, ends = Reactor(), []
    line = FrameSocket(reactor, one, lambda *_frame: None, lambda: ends.append(1), longest=10)
    closed = socket.socket()
    closed.close()
    line.send(b"with what is closed", (closed,))
    line.send(b"lost")
    line.doRead()
    assert ends == [1]
    assert other.recv(100) == b""


def test_the_end_is_told_once(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    reactor, ends = Reactor(), []
    line = FrameSocket(reactor, one, lambda *_frame: None, lambda: ends.append(1), longest=10)
    other.sendall(HEADER.pack(11, 0))
    line.doRead()
    line.close()
    line.send(b"lost")
    assert ends == [1]
    assert not reactor.readers


def test_what_a_process_said_before_its_end_is_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    taken: list[bytes] = []
    line = FrameSocket(Reactor(), near, lambda body, _passed: taken.append(body), lambda: None, longest=1 << 20)  # type: ignore[arg-type]
    bodies = [b"a" * 40_000, b"b" * 40_000, b"c"]
    for body in bodies:
        send_blocking(far, body)
    # A descriptor of the other end may live on, in a process that was forked meanwhile: no end can be read then.
    line.finish()
    assert taken == bodies
    assert near.fileno() == -1
    line.finish()
