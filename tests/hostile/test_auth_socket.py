"""Programs at the socket for logins that are broken, or have been taken over."""

from __future__ import annotations

import base64
import random
import socket
import threading
from typing import Self

import pytest

from mailserver.dovecot_auth.wire import MAX_LINE
from tests.server import Server

USER = "u020@example.test"


class Peer:
    """One connection, after the greeting."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(server.dir / "auth.socket"))
        self.file = self.socket.makefile("rb")
        while self.file.readline() != b"DONE\n":
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def log_in(self, server: Server, number: int = 1) -> bytes:
        """The answer to a right password."""
        password = server.accounts[USER]
        self.send(auth(number, USER, password, "192.0.2.200"))
        return self.file.readline()


def auth(number: int, user: str, password: str, address: str) -> bytes:
    plain = base64.b64encode(f"\0{user}\0{password}".encode())
    return b"AUTH\t%d\tPLAIN\tservice=imap\trip=%b\tresp=%b\n" % (number, address.encode(), plain)


def ok(number: int = 1) -> bytes:
    return b"OK\t%d\tuser=%b\n" % (number, USER.encode())


@pytest.mark.parametrize(
    "data",
    [
        b"A" * 1_000_000,
        b"AUTH\t1\tPLAIN\tresp=" + b"A" * 1_000_000 + b"\n",
        b"AUTH\t1\tLOGIN\t" + b"x\t" * (MAX_LINE // 2) + b"\n",
        b"\n" * 100_000,
        b"\0" * 100_000,
        b"AUTH\t1\tLOGIN\n" * 10_000,
        b"GET / HTTP/1.1\r\nHost: mail.example.test\r\n\r\n",
    ],
    ids=["no end", "a long response", "many parameters", "empty lines", "zeros", "one id", "http"],
)
def test_what_breaks_the_protocol_ends_the_connection(server: Server, data: bytes) -> None:
    with Peer(server) as peer:
        try:
            peer.send(data)
            while peer.file.readline():
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass
    with Peer(server) as another:
        assert another.log_in(server) == ok()


def test_a_hundred_thousand_messages_for_nobody(server: Server) -> None:
    with Peer(server) as peer:
        writer = threading.Thread(target=peer.send, args=(b"CONT\t7\tAAAA\n" * 100_000,))
        writer.start()
        for _ in range(100_000):
            assert peer.file.readline().startswith(b"FAIL\t7\t")
        writer.join()
        assert peer.log_in(server) == ok()


def test_a_peer_that_takes_no_answer_is_not_read(server: Server) -> None:
    with Peer(server) as peer:
        peer.socket.settimeout(2)
        with pytest.raises(TimeoutError):
            peer.send(b"CONT\t7\tAAAA\n" * 10_000_000)
        with Peer(server) as another:
            assert another.log_in(server) == ok()


def test_ten_thousand_requests_that_never_go_on(server: Server) -> None:
    with Peer(server) as peer:
        lines = b"".join(b"AUTH\t%d\tLOGIN\trip=10.%d.%d.1\n" % (n, n // 250, n % 250) for n in range(1, 10_001))
        last = auth(20_000, USER, server.accounts[USER], "192.0.2.200")
        writer = threading.Thread(target=peer.send, args=(lines + last,))
        writer.start()
        got = []
        while not got or got[-1] != ok(20_000):
            got.append(peer.file.readline())
            assert got[-1], "it goes on"
        writer.join()
        assert sum(line.startswith(b"CONT\t") for line in got) == 10_000
        assert sum(line.startswith(b"FAIL\t") for line in got) >= 9_000, "the oldest made room"


def test_guesses_for_one_user_do_not_keep_out_another(server: Server) -> None:
    victim = "u021@example.test"
    with Peer(server) as peer, Peer(server) as another:
        lines = (auth(n, victim, f"guess {n}", f"10.{n // 250}.{n % 250}.1") for n in range(1, 1001))
        writer = threading.Thread(target=peer.send, args=(b"".join(lines),))
        writer.start()
        assert another.log_in(server) == ok()
        writer.join()
        for _ in range(1000):
            assert peer.file.readline().startswith(b"FAIL\t"), "within eight seconds each"


@pytest.mark.parametrize("seed", range(4))
def test_octets_by_chance(server: Server, seed: int) -> None:
    chance = random.Random(seed)
    words = [b"AUTH", b"CONT", b"CANCEL", b"VERSION", b"CPID", b"\t", b"\n", b"1", b"2", b"PLAIN", b"LOGIN", b"resp=", b"rip=",
             b"192.0.2.1", b"\1", b"\1t", b"\0", b"AGE=", b"service=smtp", b"\xff"]  # fmt: skip
    for _ in range(50):
        with Peer(server) as peer:
            try:
                peer.send(b"".join(chance.choices(words, k=200)) + b"\n")
            except (BrokenPipeError, ConnectionResetError):
                continue
    with Peer(server) as peer:
        assert peer.log_in(server) == ok()
