"""Programs at the socket for look-ups that are broken, or have been taken over."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import Self

import pytest

from mailserver.lookup.wire import MAX_REQUEST, netstring
from tests.server import Server

USER = "u020@example.test"
ASK = netstring(b"alias " + USER.encode())
ANSWER = netstring(b"OK " + USER.encode())
NOT_FOUND = netstring(b"NOTFOUND ")


class Peer:
    """One connection."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(server.dir / "lookup.socket"))
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes = ASK, answer: bytes = ANSWER) -> None:
        self.send(data)
        assert self.file.read(len(answer)) == answer


def in_the_background(call: object, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=call, args=arguments)  # type: ignore[arg-type]
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"1073741824:alias " + b"x" * 1_000_000, b"longer than 100000"),
        (b"9" * 1_000_000, b"longer than 100000"),
        (b"0" * 1_000_000, b"begins with a zero"),
        (b"0000000000028:alias u020@example.test,", b"begins with a zero"),
        (b"\0" * 100_000, b"its length and a colon"),
        (b"\n" * 100_000, b"its length and a colon"),
        (b"5:alias u020@example.test,", b"comma"),
        (b"99999:" + b"x" * 1_000_000, b"comma"),
        (b"5:alias,", b"name of a map, a space and a key"),
        (b"get u020@example.test\n", b"its length and a colon"),
        (b"GET / HTTP/1.1\r\nHost: mail.example.test\r\n\r\n", b"its length and a colon"),
    ],
)
def test_what_breaks_the_protocol_is_refused_and_ends_the_connection(
    server: Server, data: bytes, reason: bytes
) -> None:
    with Peer(server) as peer:
        peer.ask()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.send(data)
        try:
            said = peer.file.read()
        except ConnectionResetError:  # it had sent more than was read
            said = reason
        assert reason in said
        assert said == reason or said.split(b":", 1)[1].startswith(b"PERM ")
    with Peer(server) as another:
        another.ask()


@pytest.mark.parametrize("name", [b"domain", b"mailbox", b"alias", b"sender"])
@pytest.mark.parametrize(
    "key",
    [b"\0", b"a\0b@example.test", b"\xff\xfe@example.test", b"a b@example.test", b"a:b@example.test", b"../../x@example.test", b"%s%n@example.test",
     b"x" * 65536, b"x" * (MAX_REQUEST - 10), b"@" * 1000, b"a@" * 300, b'"' * 900 + b"@example.test", b"+" * 800 + b"@example.test", b"\\" * 800 + b'"@example.test',
     '"\u202e"@example.test'.encode(), "\U0001f4e7@\U0001f4e7.example".encode(), b"x@xn--" + b"a" * 200 + b".test"],
)  # fmt: skip
def test_keys_that_are_no_addresses(server: Server, name: bytes, key: bytes) -> None:
    with Peer(server) as peer:
        peer.ask(netstring(name + b" " + key), NOT_FOUND)
        peer.ask()


def test_a_hundred_thousand_requests_sent_ahead(server: Server) -> None:
    """The one who watches has its turns meanwhile (conftest)."""
    number = 100_000
    with Peer(server) as peer:
        writer = in_the_background(peer.send, ASK * number)
        for _ in range(number // 1000):
            assert peer.file.read(1000 * len(ANSWER)) == ANSWER * 1000
        writer.join()


def test_many_connections_that_ask_without_an_end(server: Server) -> None:
    peers = [Peer(server) for _ in range(50)]
    writers = [in_the_background(peer.send, ASK * 400) for peer in peers]
    with Peer(server) as another:
        began = time.monotonic()
        another.ask()
        assert time.monotonic() - began < 60
    for peer, writer in zip(peers, writers, strict=True):
        assert peer.file.read(400 * len(ANSWER)) == ANSWER * 400
        writer.join()
        peer.__exit__()


def test_a_peer_that_takes_no_answer_is_not_read(server: Server) -> None:
    with Peer(server) as peer:
        peer.socket.settimeout(2)
        with pytest.raises(TimeoutError):
            peer.send(ASK * 1_000_000)
        with Peer(server) as another:
            another.ask()


def test_a_slow_peer(server: Server) -> None:
    with Peer(server) as peer:
        for octet in ASK[:-1]:
            peer.send(bytes([octet]))
            time.sleep(0.005)
        with Peer(server) as another:
            another.ask()
        peer.ask(b",")


def test_half_a_request_and_the_end(server: Server) -> None:
    for end in range(len(ASK)):
        with Peer(server) as peer:
            peer.send(ASK[:end])
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.file.read() == b""
    with Peer(server) as peer:
        peer.send(ASK)
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.file.read() == ANSWER, "what was asked is answered"


@pytest.mark.parametrize("seed", range(4))
def test_octets_by_chance(server: Server, seed: int) -> None:
    chance = random.Random(seed)
    words = [b"1", b"0", b"8", b":", b",", b" ", b"alias", b"domain", b"sender", b"mailbox", b"@", b"example.test", b"\0", b"\n",
             b"\xff", ASK, b"8:alias @@,", b"alias a@b", b"u020", b"100000:"]  # fmt: skip
    for _ in range(50):
        with Peer(server) as peer:
            try:
                peer.send(b"".join(chance.choices(words, k=200)))
            except (BrokenPipeError, ConnectionResetError):
                continue
    with Peer(server) as peer:
        peer.ask()
