"""Descriptors passed by strangers: whoever closes them must not be the one that serves."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Protocol, ServerFactory

from mailserver.net.ipc.frames import Decoder, FrameSocket, to_pickle
from mailserver.net.ipc.received_fds import close_descriptors, close_socket
from mailserver.net.listeners.unix_sockets import bind_unix, serve_unix

HELD = 20
"""Seconds for which the last `close` of such a socket waits."""
SOON = 15.0

reactor: Any = _reactor


@pytest.fixture
def lingering() -> Iterator[list[int]]:
    """Descriptors of sockets whose last close waits, each the only one, to be passed; whatever is left is closed."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        made = []
        for _ in range(2):
            near = socket.create_connection(listener.getsockname())
            stack.enter_context(listener.accept()[0])
            near.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    near.send(b"x" * 65536)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, HELD))
            made.append(near.detach())
        yield made


def pass_on(line: socket.socket, number: int, octets: bytes = b"x") -> None:
    line.sendmsg([octets], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [number]))])
    os.close(number)


def test_what_was_passed_is_closed_without_waiting(lingering: list[int]) -> None:
    began = time.monotonic()
    close_descriptors(lingering)
    assert time.monotonic() - began < SOON
    for number in lingering:
        while time.monotonic() - began < SOON:
            try:
                os.fstat(number)
            except OSError:
                break
            time.sleep(0.01)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_a_close_that_waits_whatever_was_set_is_waited_for_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a file in a file system of the one who passed it."""
    ours, theirs = os.pipe()
    close, go_on = os.close, threading.Event()

    def waiting(number: int) -> None:
        if number == ours:
            assert go_on.wait(HELD)
        close(number)

    before = threading.enumerate()
    monkeypatch.setattr(os, "close", waiting)
    close_descriptors([ours])
    os.fstat(ours)  # not yet
    go_on.set()
    for thread in threading.enumerate():
        if thread not in before:
            thread.join(HELD)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ours)
    close(theirs)


def test_a_line_on_which_some_are_under_way(lingering: list[int]) -> None:
    ours, theirs = socket.socketpair()
    for number in lingering:
        pass_on(theirs, number)
    began = time.monotonic()
    close_socket(ours)
    assert time.monotonic() - began < SOON
    theirs.close()


def test_a_line_that_has_nothing_unread_is_closed_at_once() -> None:
    ours, theirs = socket.socketpair()
    close_socket(ours)
    assert ours.fileno() == -1
    assert theirs.recv(1) == b""
    theirs.close()


class Reactor:
    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments: None


def test_the_end_of_a_frame_line(lingering: list[int]) -> None:
    ours, theirs = socket.socketpair()
    line = FrameSocket(Reactor(), ours, lambda _body, _passed: None, lambda: None, longest=1000)  # type: ignore[arg-type]
    body = to_pickle({})
    pass_on(theirs, lingering[0], struct.pack("!IH", len(body), 5) + body)  # five are announced: the end
    pass_on(theirs, lingering[1])
    began = time.monotonic()
    line.doRead()
    assert time.monotonic() - began < SOON
    assert line.fileno() == -1
    theirs.close()


def test_a_decoder_gives_up_what_no_frame_has_taken(lingering: list[int]) -> None:
    decoder = Decoder(1000)
    decoder.receive(b"", lingering)
    began = time.monotonic()
    decoder.close()
    assert time.monotonic() - began < SOON


class Hearing(Protocol):
    heard = b""
    over = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: object = None) -> None:
        self.over = True


def test_a_unix_socket_cuts_who_passes_some(tmp_path: Path, lingering: list[int]) -> None:
    made: list[Hearing] = []

    class Made(ServerFactory):
        noisy = False

        def buildProtocol(self, addr: object) -> Hearing:
            made.append(Hearing())
            return made[-1]

    def turn(until: Any) -> None:
        began = time.monotonic()
        while not until() and time.monotonic() - began < SOON:
            reactor.iterate(0.01)
        assert until()
        assert time.monotonic() - began < SOON

    port = serve_unix(bind_unix(tmp_path / "socket", 0o600), Made(), reactor)
    with socket.socket(socket.AF_UNIX) as bad, socket.socket(socket.AF_UNIX) as good:
        bad.connect(str(tmp_path / "socket"))
        pass_on(bad, lingering[0])
        pass_on(bad, lingering[1])
        turn(lambda: made and made[0].over)
        good.connect(str(tmp_path / "socket"))
        good.sendall(b"hello")
        turn(lambda: len(made) == 2 and made[1].heard == b"hello")
        assert not made[1].over
    turn(lambda: made[1].over)
    port.stopListening()
