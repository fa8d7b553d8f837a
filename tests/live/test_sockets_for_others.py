"""The sockets at which other servers ask for logins and addresses, with two workers: seen, ended, reloaded, killed, abused."""

from __future__ import annotations

import base64
import contextlib
import grp
import os
import pwd
import re
import socket
import stat
import threading
import urllib.request
from collections.abc import Iterator
from typing import Self

import pytest

from mailserver.lookup.wire import netstring
from tests.live.client import Client, eventually
from tests.live.conftest import no_bug
from tests.server import Server
from tests.workers.processes import kill, workers

SOCKETS = """
[[listener]]
protocol = "auth"
socket = "{dir}/auth"
socket_mode = "0600"

[[listener]]
protocol = "lookup"
socket = "{dir}/lookup"
socket_mode = "0640"
socket_owner = "daemon"
socket_group = "mail"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("sockets"), append=SOCKETS, workers=2)
    with server:
        yield server
    no_bug(server.log)


class Peer:
    """Another server's connection."""

    def __init__(self, server: Server, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(server.dir / name))
        self.file = self.socket.makefile("rb")
        if name == "auth":
            while self.file.readline() != b"DONE\n":
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.file.close()
        self.socket.close()

    def reply(self) -> bytes:
        """A reply of a look-up; empty at the end of the connection."""
        size = b""
        while (octet := self.file.read(1)) not in {b"", b":"}:
            size += octet
        return self.file.read(int(size) + 1)[:-1] if size else b""

    def look_up(self, key: bytes, name: bytes = b"alias") -> bytes:
        self.socket.sendall(netstring(name + b" " + key))
        return self.reply()

    def is_ended(self) -> bool:
        try:
            return not self.file.read()
        except ConnectionError:
            return True


def auth_line(number: int, user: str, password: str) -> bytes:
    plain = base64.b64encode(f"\0{user}\0{password}".encode())
    return b"AUTH\t%d\tPLAIN\tservice=imap\trip=192.0.2.1\tresp=%b\n" % (number, plain)


@pytest.fixture
def bystander(server: Server) -> Iterator[Peer]:
    """Another connection of the same kind, which has its answer before and after."""
    user = server.user_of("example.test")[0]
    with Peer(server, "lookup") as peer:
        assert peer.look_up(user.encode()) == b"OK " + user.encode()
        yield peer
        assert peer.look_up(user.encode()) == b"OK " + user.encode()


def sessions(server: Server, protocol: str) -> list[str]:
    rows = server.run_cli("who", "--config", str(server.config), "--protocol", protocol).stdout.splitlines()
    return [row.split()[0] for row in rows[1:]]


@pytest.mark.parametrize("protocol", ["auth", "lookup"])
def test_the_administrator_sees_and_ends_one_connection(server: Server, protocol: str) -> None:
    with Peer(server, protocol) as other:
        [known] = sessions(server, protocol)
        with Peer(server, protocol) as peer:
            [session] = set(sessions(server, protocol)) - {known}
            server.run_cli("kick", "--config", str(server.config), session)
            assert peer.is_ended()
        assert sessions(server, protocol) == [known]
        user, password = server.user_of("example.test")
        if protocol == "auth":
            other.socket.sendall(auth_line(1, user, password))
            assert other.file.readline() == f"OK\t1\tuser={user}\n".encode()
        else:
            assert other.look_up(user.encode()) == b"OK " + user.encode()
    eventually(lambda: sessions(server, protocol) == [])


def test_mode_and_owner_of_the_sockets_also_after_a_reload(server: Server) -> None:
    expected = {
        "auth": (0o600, os.geteuid(), None),
        "lookup": (0o640, pwd.getpwnam("daemon").pw_uid, grp.getgrnam("mail").gr_gid),
    }
    for _ in range(2):
        for name, (mode, owner, group) in expected.items():
            status = os.stat(server.dir / name)
            assert stat.S_ISSOCK(status.st_mode)
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (mode, owner)
            assert group in {None, status.st_gid}
        server.run_cli("reload", "--config", str(server.config))


def test_connections_go_on_over_a_reload(server: Server, bystander: Peer) -> None:
    user, password = server.user_of("example.test")
    with Peer(server, "auth") as asking, Peer(server, "lookup") as looking:
        # One half of a request before, the other behind.
        line, request = auth_line(1, user, password), netstring(b"alias " + user.encode())
        asking.socket.sendall(line[:20])
        looking.socket.sendall(request[:7])
        server.run_cli("reload", "--config", str(server.config))
        asking.socket.sendall(line[20:])
        looking.socket.sendall(request[7:])
        assert asking.file.readline() == f"OK\t1\tuser={user}\n".encode()
        assert looking.reply() == b"OK " + user.encode()


def counted(server: Server, pattern: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port('metrics')}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return sum(float(each) for each in re.findall(rf"^{pattern} (.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("protocol", ["auth", "lookup"])
def test_connections_are_counted(server: Server, protocol: str) -> None:
    total = rf'mailserver_connections_total\{{[^}}]*protocol="{protocol}"[^}}]*\}}'
    before = counted(server, total)
    with Peer(server, protocol), Peer(server, protocol):
        eventually(lambda: counted(server, total) == before + 2)


def test_a_thousand_requests_sent_ahead_beside_others(server: Server, bystander: Peer) -> None:
    user, password = server.user_of("example.test")
    with Peer(server, "lookup") as peer, Peer(server, "auth") as asking, Client(server, "imaps") as session:
        session.greeting()
        session.log_in(user, password)
        keys = [user.encode() if number % 2 else b"nobody%d@example.test" % number for number in range(1000)]
        requests = b"".join(netstring(b"alias " + key) for key in keys)
        lines = b"".join(auth_line(number, user, password) for number in range(1, 1001))
        writers = [
            threading.Thread(target=peer.socket.sendall, args=(requests,)),
            threading.Thread(target=asking.socket.sendall, args=(lines,)),
        ]
        for writer in writers:
            writer.start()
        session.send(b"z NOOP\r\n")
        assert session.until(rb"z ")[-1].startswith(b"z OK")
        for key in keys:
            assert peer.reply() == (b"OK " + key if key == user.encode() else b"NOTFOUND ")
        got = {asking.file.readline() for _ in range(1000)}
        assert got == {f"OK\t{number}\tuser={user}\n".encode() for number in range(1, 1001)}
        for writer in writers:
            writer.join()


@pytest.mark.parametrize(
    "data",
    [b"1000006:alias " + b"x" * 1_000_000 + b",", b"alias " + b"\0" * 1000, b"7:alias \0;"],
    ids=["1 MB", "zeros", "no comma"],
)
def test_what_is_no_request_ends_that_connection_alone(server: Server, bystander: Peer, data: bytes) -> None:
    with Peer(server, "lookup") as peer:
        said = b""
        with contextlib.suppress(ConnectionError):
            peer.socket.sendall(data)
        with contextlib.suppress(ConnectionError):
            said = peer.reply()
        # A connection that is closed while octets are unread may lose the reply.
        assert said.startswith(b"PERM ") or (not said and len(data) > 100_000), said
        assert peer.is_ended()
    assert bystander.look_up(b"a\0b@example.test") == b"NOTFOUND "


def test_a_worker_that_is_killed_answers_nothing_wrong(server: Server) -> None:
    """What was asked of it ends without an answer; the next connection has one, and so have those of the other worker."""
    user, password = server.user_of("example.test")
    asked = [Peer(server, "auth") for _ in range(6)]
    looking = [Peer(server, "lookup") for _ in range(6)]
    before = workers(server)
    # Guesses wait for their answer: they are in flight when the worker dies.
    for number, peer in enumerate(asked, 1):
        peer.socket.sendall(auth_line(number, f"nobody{number}@example.test", "wrong"))
    kill(before[0])
    answers = []
    for number, peer in enumerate(asked, 1):
        try:
            answer = peer.file.readline()
        except ConnectionError:
            answer = b""
        assert answer == b"" or answer.startswith(b"FAIL\t%d\t" % number), answer
        answers.append(answer)
    # Twelve connections, two workers: those of the other one go on.
    alive = [peer for peer in looking if _answers(peer, user)]
    assert alive or any(answers)
    with Peer(server, "auth") as again, Peer(server, "lookup") as new:
        again.socket.sendall(auth_line(1, user, password))
        assert again.file.readline() == f"OK\t1\tuser={user}\n".encode()
        assert new.look_up(user.encode()) == b"OK " + user.encode()
    for peer in asked + looking:
        peer.__exit__()
    eventually(lambda: before[0] not in workers(server) and len(workers(server)) == 2, 60)
    for _ in range(8):
        with Peer(server, "lookup") as new:
            assert new.look_up(user.encode()) == b"OK " + user.encode()


def _answers(peer: Peer, user: str) -> bool:
    """Is the connection still served? If so, by a right answer."""
    try:
        answer = peer.look_up(user.encode())
    except ConnectionError:
        return False
    assert answer in {b"", b"OK " + user.encode()}
    return bool(answer)
