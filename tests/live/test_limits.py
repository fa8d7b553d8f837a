"""Clients that misbehave on real sockets: they are held, refused or cut, and nobody else notices."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live.client import Client, counted, eventually, family, logged_in, memory
from tests.live.conftest import no_bug
from tests.server import WORKERS, Server

LOGIN_TIME = 6
WRITE_TIME = 3
UNAUTHENTICATED = 6
SESSIONS = 4
ROOM = 16 * 1024 * 1024 * max(1, WORKERS)
"""Octets: each process needs some for what it does first."""
MESSAGE = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 60_000  # 4.7 MB
EXTRA = f"""
[[listener]]
protocol = "imap"
port = {{a}}
addresses = ["127.0.0.1"]
proxy_from = ["127.0.0.0/8"]

[[listener]]
protocol = "imaps"
port = {{b}}
addresses = ["127.0.0.1"]
proxy_from = ["127.0.0.0/8"]

[[listener]]
protocol = "imap"
port = {{c}}
addresses = ["127.0.0.1"]
proxy_from = ["192.0.2.0/24"]

[limits]
login_time = {LOGIN_TIME}
write_timeout = {WRITE_TIME}
unauthenticated_per_address = {UNAUTHENTICATED}
sessions_per_user = {SESSIONS}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("limits"), append=EXTRA)
    user, _password = server.user_of("example.test")
    for number in range(4):
        (server.maildir(user) / f"new/1700000000.M{number}P1.example").write_bytes(MESSAGE)
    with server:
        yield server
    no_bug(server.log)


def pid(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


def works(server: Server) -> bool:
    """Another user's whole session."""
    with Client(server, "imaps", name="mail.example.org", source="127.0.0.9") as client:
        client.greeting()
        client.log_in(*server.user_of("example.org"))
        client.send(b"a SELECT INBOX\r\n")
        client.until(rb"a OK")
        client.send(b"b FETCH 1:* (ENVELOPE)\r\n")
        client.until(rb"b OK")
    return True


@pytest.mark.parametrize("protocol", ["imaps", "pop3s"])
def test_a_client_that_never_reads_is_held_and_cut(server: Server, protocol: str) -> None:
    works(server)
    since = len(server.log)
    before = memory(pid(server))
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(logged_in(server, protocol, read_buffer=4096)) for _ in range(SESSIONS)]
        for client in clients:
            if protocol == "imaps":
                client.send(b"a SELECT INBOX\r\n")
                client.until(rb"a OK")
                client.send(b"b FETCH 1:* BODY.PEEK[]\r\n" * 500)
            else:
                client.send(b"RETR 1\r\n" * 500)
        most, end = 0, time.monotonic() + 20 * WRITE_TIME
        while server.log[since:].count("connection-cut") < SESSIONS:
            most = max(most, memory(pid(server)) - before)
            assert works(server)
            assert time.monotonic() < end, "they are not cut"
        # 4 clients asked for 9 GB in all. Not a byte of them needs more than one message's read at a time.
        assert most < 2 * ROOM, most
        for client in clients:
            client.socket.settimeout(20)
            with contextlib.suppress(OSError):
                client.rest()
    assert server.log[since:].count("connection-cut") == SESSIONS
    assert works(server)


def test_a_client_that_floods_without_reading_is_not_read_either(server: Server) -> None:
    before = memory(pid(server))
    with logged_in(server, "imaps", read_buffer=4096) as client:
        client.socket.settimeout(1)
        flood = b"a CAPABILITY\r\n" * 5000
        sent = 0
        with contextlib.suppress(TimeoutError, OSError):
            while sent < 256 * 1024 * 1024:
                sent += client.socket.send(flood)
        assert sent < 64 * 1024 * 1024, "the kernel's buffers are far smaller"
        assert memory(pid(server)) - before < ROOM
        assert works(server)


@pytest.mark.parametrize("protocol", ["imaps", "pop3s", "submissions"])
def test_a_line_without_an_end_takes_no_memory(server: Server, protocol: str) -> None:
    before = memory(pid(server))
    with Client(server, protocol) as client:
        client.greeting()
        client.socket.settimeout(5)
        with contextlib.suppress(OSError):
            for _ in range(512):
                client.socket.sendall(b"x" * 65536)
        assert memory(pid(server)) - before < ROOM
    assert works(server)


def dripped(client: Client, octets: Iterable[bytes]) -> None:
    """Until the server ends it, or all of them are sent."""
    with contextlib.suppress(OSError):
        for octet in octets:
            client.socket.sendall(octet)
            client.socket.settimeout(0.3)
            try:
                if not client.socket.recv(1000):
                    break
            except TimeoutError:
                continue


def test_login_time_ends_whoever_drips(server: Server) -> None:
    def took(protocol: str, source: str) -> float:
        began = time.monotonic()
        with Client(server, protocol, source=source) as client:
            client.greeting()
            dripped(client, itertools.repeat(b"N", 20 * LOGIN_TIME))
            return time.monotonic() - began

    protocols = ("imaps", "pop3s", "submissions", "imap", "pop3", "submission")
    with ThreadPoolExecutor(len(protocols)) as threads:
        for seconds in threads.map(took, protocols, [f"127.0.0.{10 + number}" for number in range(len(protocols))]):
            assert LOGIN_TIME - 0.5 < seconds < 5 * LOGIN_TIME


def test_login_time_ends_a_handshake_that_drips(server: Server) -> None:
    out = ssl.MemoryBIO()
    layer = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="mail.example.test")
    with pytest.raises(ssl.SSLWantReadError):
        layer.do_handshake()
    hello = out.read()
    since = len(server.log)

    def took(protocol: str) -> float:
        with Client(server, protocol, tls=False) as client:
            if protocol == "imap":
                client.greeting()
                client.ask(b"s STARTTLS\r\n")
            began = time.monotonic()
            dripped(client, (hello[at : at + 1] for at in range(len(hello) - 1)))
            return time.monotonic() - began

    with ThreadPoolExecutor(2) as threads:
        assert max(threads.map(took, ("imaps", "imap"))) < 5 * LOGIN_TIME
    eventually(lambda: server.log[since:].count("no handshake in time") == 2)


def test_connections_before_login_are_counted_by_address(server: Server) -> None:
    nobody_is_counted(server)
    with contextlib.ExitStack() as opened:
        for _ in range(UNAUTHENTICATED):
            opened.enter_context(Client(server, "imap")).greeting()
        counted()
        for protocol, refusal in (
            ("imap", rb"* BYE [LIMIT] "),
            ("pop3", rb"-ERR [SYS/TEMP] "),
            ("submission", b"421 4.7.0 "),
        ):
            with Client(server, protocol) as refused:
                said = refused.rest()
            assert said.startswith(refusal)
            assert said.count(b"\r\n") == 1
        with pytest.raises((ssl.SSLError, OSError)):
            Client(server, "imaps")
        with Client(server, "lmtp") as mta:
            mta.greeting()  # has no login, and so no share
        with logged_in(server, "imaps", source="127.0.0.2"):
            pass
    nobody_is_counted(server)
    with logged_in(server, "imaps"):
        pass


def nobody_is_counted(server: Server) -> None:
    eventually(lambda: not connections(server))
    counted()


def connections(server: Server) -> int:
    """Those that the server has open."""
    ports = {f":{port:04X}" for port in (*(server.port(name) for name in ("imap", "imaps", "pop3", "pop3s")),)}
    with open("/proc/net/tcp", encoding="ascii") as file:
        lines = [line.split() for line in file][1:]
    return sum(line[1][-5:] in ports and line[3] == "01" for line in lines)


@pytest.mark.parametrize(
    ("protocol", "refusal"), [("imaps", b"a NO [LIMIT]"), ("pop3s", b"-ERR [SYS/TEMP]"), ("submissions", b"4")]
)
def test_sessions_are_counted_by_user_and_address(server: Server, protocol: str, refusal: bytes) -> None:
    nobody_is_counted(server)
    user, password = server.user_of("example.test")
    with contextlib.ExitStack() as opened:
        first = [opened.enter_context(logged_in(server, "imaps")) for _ in range(SESSIONS)]
        counted()
        for _ in range(2):
            with Client(server, protocol) as client:
                client.greeting()
                assert client.try_login(user, password).startswith(refusal)
        with logged_in(server, protocol, source="127.0.0.2"), logged_in(server, protocol, domain="example.org"):
            pass
        first[0].ask(b"z LOGOUT\r\n")
        first[0].socket.close()

        def again() -> bool:
            with Client(server, protocol) as client:
                client.greeting()
                return not client.try_login(user, password).startswith(refusal)

        eventually(again)


def test_the_address_that_a_trusted_proxy_tells_is_the_clients(server: Server) -> None:
    a, b, c = server.spare_ports
    header = b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 143\r\n"
    for protocol, port in (("imap", a), ("imaps", b)):
        since = len(server.log)
        with Client(server, protocol, port=port, before=header) as client:
            client.greeting()
            if protocol == "imap":
                client.upgrade()
            client.log_in(*server.user_of("example.test"))
        server.wait_for(rf"login session=\S+ protocol={protocol} peer=198\.51\.100\.7 tls=TLSv1", since=since)
    with contextlib.ExitStack() as opened:
        for _ in range(UNAUTHENTICATED):
            opened.enter_context(Client(server, "imap", port=a, before=header)).greeting()
        counted()
        with Client(server, "imap", port=a, before=header) as refused:
            assert refused.line().startswith(b"* BYE")
        with Client(server, "imap", port=a, before=header.replace(b".7 ", b".8 ")) as other:
            other.greeting()
    # An untrusted network is not believed: the header is a bad command, the address its own.
    since = len(server.log)
    with Client(server, "imap", port=c, before=header) as client:
        client.greeting()
        assert b"BAD" in client.line()
        client.upgrade().log_in(*server.user_of("example.test"))
    server.wait_for(r"login session=\S+ protocol=imap peer=127\.0\.0\.1 ", since=since)


@pytest.mark.parametrize("header", [b"a LOGIN x y\r\n", b"PROXY TCP4 1 2 3 4\r\n", b"\x16\x03\x01\x02\x00\x01"])
def test_a_trusted_proxy_without_a_header_is_closed(server: Server, header: bytes) -> None:
    since = len(server.log)
    for port in server.spare_ports[:2]:
        with Client(server, "imap", port=port, before=header) as client:
            assert client.rest() == b""
    server.wait_for("proxy-header-refused", since=since)


@pytest.mark.parametrize("protocol", ["imap", "pop3", "submission", "lmtp"])
def test_a_half_closed_client_gets_its_answers(server: Server, protocol: str) -> None:
    last = {"imap": b"z LOGOUT\r\n", "pop3": b"QUIT\r\n", "submission": b"QUIT\r\n", "lmtp": b"QUIT\r\n"}
    with Client(server, protocol) as client:
        client.send(b"a NOOP\r\n" * 3 if family(protocol) == "imap" else b"NOOP\r\n" * 3)
        client.send(last[protocol])
        client.socket.shutdown(socket.SHUT_WR)
        said = client.rest()
    assert said.count(b"\r\n") >= 5
    assert said.splitlines()[-1].startswith((b"z OK", b"+OK", b"221"))
    with Client(server, protocol) as client:
        client.greeting()
        client.socket.shutdown(socket.SHUT_WR)
        client.rest()
