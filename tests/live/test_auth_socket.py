"""The socket at which other servers ask for logins: users' limits, the administrator's view, changes while it is open."""

from __future__ import annotations

import base64
import os
import re
import socket
import stat
import urllib.request
from collections.abc import Iterator
from typing import Self

import pytest

from tests.live.client import eventually
from tests.live.conftest import no_bug
from tests.server import Server

APPEND = '[[listener]]\nprotocol = "auth"\nsocket = "{dir}/auth"\nsocket_mode = "0600"\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("auth"), append=APPEND, workers=2)
    _limit_networks(server, server.user_of("example.org")[0])
    with server:
        yield server
    no_bug(server.log)


def _limit_networks(server: Server, user: str) -> None:
    users = server.dir / "users"
    lines = users.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{user}:"))
    lines[at] += " allow_nets=192.0.2.0/24"
    users.write_text("\n".join([*lines, ""]))


class Peer:
    """Another server's connection."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(server.dir / "auth"))
        self.file = self.socket.makefile("rb")
        self.greeting = list(iter(self.file.readline, b"DONE\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, user: str, password: str, parameters: str = "service=imap\trip=192.0.2.1", number: int = 1) -> str:
        plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.socket.sendall(f"AUTH\t{number}\tPLAIN\t{parameters}\tresp={plain}\n".encode())
        return self.file.readline().decode()


def test_its_rights_and_its_line(server: Server) -> None:
    status = os.stat(server.dir / "auth")
    assert (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode)) == (True, 0o600)
    assert re.search(rf"serving auth on {server.dir}/auth \(no TLS\): root.* can connect \(mode 0600\)", server.log)


def test_networks_of_a_user_are_about_the_client_that_is_named(server: Server) -> None:
    user, password = server.user_of("example.org")
    with Peer(server) as peer:
        assert peer.ask(user, password, "rip=198.51.100.1").startswith("FAIL\t1\t")
        assert peer.ask(user, password, "rip=192.0.2.77") == f"OK\t1\tuser={user}\n"
        assert peer.ask(user, password, "service=smtp").startswith("FAIL\t1\t"), "without rip it is a local program"


def test_a_disabled_user(server: Server) -> None:
    user, password = list(server.accounts.items())[1]
    with Peer(server) as peer:
        assert peer.ask(user, password) == f"OK\t1\tuser={user}\n"
        server.run_cli("user", "disable", "--config", str(server.config), user)
        eventually(lambda: peer.ask(user, password).startswith("FAIL\t1\t"))
        assert "temp" not in peer.ask(user, password)
        server.run_cli("user", "enable", "--config", str(server.config), user)
        eventually(lambda: peer.ask(user, password).startswith("OK\t1\t"))


def test_a_ban_is_for_the_client_that_is_named(server: Server) -> None:
    user, password = server.user_of("example.test")
    config = ("--config", str(server.config))
    with Peer(server) as peer:
        server.run_cli("bans", "add", "203.0.113.66", "--reason", "a test", *config)
        try:
            eventually(lambda: "\tcode=temp_fail\t" in peer.ask(user, password, "service=imap\trip=203.0.113.66"))
            assert peer.ask(user, password, "service=smtp\trip=203.0.113.67") == f"OK\t1\tuser={user}\n"
        finally:
            server.run_cli("bans", "remove", "203.0.113.66", *config)
        eventually(lambda: peer.ask(user, password, "service=imap\trip=203.0.113.66").startswith("OK\t"))


def test_a_name_that_may_be_a_password_goes_to_no_log(server: Server) -> None:
    with Peer(server) as peer:
        answer = peer.ask("correct-horse-battery", "x")
        assert answer.startswith("FAIL\t1\treason=wrong user name or password (ref ")
        ref = answer.split("(ref ")[1][:9]
    server.wait_for(rf'login-failed .*protocol=auth .*user="\(21 characters\)" method=PLAIN .*ref={ref}\n')
    assert "correct-horse" not in server.log


def test_the_administrator_sees_and_ends_connections(server: Server) -> None:
    config = ("--config", str(server.config))
    with Peer(server) as peer:
        rows = server.run_cli("who", *config, "--protocol", "auth").stdout.splitlines()[1:]
        assert len(rows) == 1, rows
        session, user, protocol, address, tls = rows[0].split()[:5]
        assert (user, protocol, address, tls) == ("-", "auth", "local", "-")
        server.run_cli("kick", *config, session)
        assert peer.file.readline() == b""
    assert server.run_cli("clients", *config).stdout.count(" auth ") == 0, "the ledger is about TLS with this server"


def test_its_logins_are_counted(server: Server) -> None:
    def counted(name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port('metrics')}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        found = re.search(rf'^mailserver_{name}_total{{protocol="auth",tls="none"}} (.*)$', text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    before = counted("logins"), counted("login_failures")
    user, password = server.user_of("example.test")
    with Peer(server) as peer:
        assert peer.ask(user, password).startswith("OK\t")
        assert peer.ask(user, "wrong").startswith("FAIL\t")
    eventually(lambda: (counted("logins"), counted("login_failures")) == (before[0] + 1, before[1] + 1))


def test_a_reload_is_taken_up_by_open_connections(server: Server) -> None:
    user, password = server.user_of("example.test")
    text = server.config.read_text()
    with Peer(server) as peer:
        assert not any(b"SCRAM" in line for line in peer.greeting)
        server.config.write_text(text.replace("[auth]\n", '[auth]\nscram_protocols = ["submission"]\n'))
        try:
            server.run_cli("reload", "--config", str(server.config))
            with Peer(server) as new:
                assert b"MECH\tSCRAM-SHA-256\tmutual-auth\n" in new.greeting
            assert peer.ask(user, password, number=2) == f"OK\t2\tuser={user}\n"
            first = base64.b64encode(f"n,,n={user},r=abc".encode())
            peer.socket.sendall(b"AUTH\t3\tSCRAM-SHA-256\tresp=%b\n" % first)
            assert peer.file.readline().startswith(b"CONT\t3\t")
        finally:
            server.config.write_text(text)
            server.run_cli("reload", "--config", str(server.config))


def test_app_passwords_work_for_the_service_that_the_other_server_names(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = tmp_path_factory.mktemp("app")
    accounts = {f"file:{place}/users": f"directory:{place}/accounts/directory.db"}
    server = Server(place, append=APPEND, edit=accounts)
    config = ("--config", str(server.config))
    user, password = server.user_of("example.test")
    server.run_cli("directory", "create", *config)
    server.run_cli("directory", "import", *config, str(place / "users"))
    command = ["user", "app-password", "add", *config, user, "--label", "phone", "--protocol", "submission"]
    phone = server.run_cli(*command).stdout.partition("password: ")[2].split()[0]
    server.run_cli("user", "limit", *config, user, "--password-protocol", "imap")
    with server, Peer(server) as peer:
        assert peer.ask(user, phone.upper(), "service=smtp\trip=192.0.2.1") == f"OK\t1\tuser={user}\n"
        assert peer.ask(user, phone, "service=imap\trip=192.0.2.1").startswith("FAIL\t1\t")
        assert peer.ask(user, password, "service=imap\trip=192.0.2.1") == f"OK\t1\tuser={user}\n"
        for service in ("smtp", "sieve"):
            answer = peer.ask(user, password, f"service={service}\trip=192.0.2.1")
            assert "reason=wrong user name or password" in answer, "not that it was right"
    no_bug(server.log)
