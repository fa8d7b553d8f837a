"""Bans on a whole server: counted over all workers, refused by all of them, kept over restarts, and never of bystanders."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.live.client import eventually
from tests.live.test_auth_socket import Peer
from tests.server import Server

ATTACKER, BYSTANDER, OTHER = "192.0.2.66", "198.51.100.1", "203.0.113.7"
USUAL = "198.51.100.200"
NAMES = 4
EXTRA = f"""
[[listener]]
protocol = "imap"
port = {{a}}
addresses = ["127.0.0.1"]
allow_cleartext = true
proxy_from = ["127.0.0.0/8"]

[[listener]]
protocol = "auth"
socket = "{{dir}}/auth"

[bans]
names = {NAMES}
guesses = 6
never = ["203.0.113.0/24"]
"""


class Client:
    """A connection by way of a proxy that names its client."""

    def __init__(self, server: Server, peer: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.spare_ports[0]), timeout=30)
        self.socket.sendall(f"PROXY TCP{6 if ':' in peer else 4} {peer} {peer} 40000 143\r\n".encode())
        self.file = self.socket.makefile("rb")

    def line(self) -> bytes:
        """The next line; empty where the server has closed."""
        with contextlib.suppress(ConnectionError):
            return self.file.readline()
        return b""

    def log_in(self, name: str, password: str) -> bytes:
        """The answer to a login; empty where the server has closed."""
        with contextlib.suppress(ConnectionError):
            response = base64.b64encode(f"\0{name}\0{password}".encode())
            self.socket.sendall(b"a AUTHENTICATE PLAIN " + response + b"\r\n")
            while (line := self.line()) and not line.startswith(b"a "):
                pass
            return line
        return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()
        self.socket.close()


def is_served(server: Server, peer: str) -> bool:
    with Client(server, peer) as client:
        return client.line().startswith(b"* OK")


def is_served_by_none(server: Server, peer: str) -> bool:
    """Does no worker serve it? Connections go to any of them."""
    return not any(is_served(server, peer) for _ in range(12))


def guess(server: Server, peer: str, names: list[str], password: str = "a wrong password") -> None:
    """Try names at once, each in a connection of its own: the workers share them."""
    clients = [Client(server, peer) for _ in names]
    for client in clients:
        client.line()
    for client, name in zip(clients, names, strict=True):
        response = base64.b64encode(f"\0{name}\0{password}".encode())
        with contextlib.suppress(ConnectionError):
            client.socket.sendall(b"a AUTHENTICATE PLAIN " + response + b"\r\n")
    for client in clients:
        while (line := client.line()) and b"(ref " not in line:
            pass
        client.__exit__()


def strangers(number: int = NAMES) -> list[str]:
    return [f"nobody{each}@example.test" for each in range(number)]


def cli(server: Server, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return server.run_cli(*arguments, "--config", str(server.config), check=check)


def listed(server: Server) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(cli(server, "bans", "list", "--json").stdout)
    return rows


@pytest.fixture(params=[0, 2], ids=["single", "workers"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    edit = {"[auth]\n": "[auth]\nfailure_delay_max = 1\n"}
    server = Server(tmp_path / "server", append=EXTRA, workers=request.param, edit=edit)
    with server:
        # Before the first login from anywhere nobody is banned.
        with Client(server, USUAL) as client:
            client.line()
            assert client.log_in(*server.user_of("example.test")).startswith(b"a OK")
        yield server
    assert "event=bug" not in server.log


def test_a_ban_holds_in_all_workers_and_spares_bystanders_and_those_logged_in(server: Server) -> None:
    user, password = server.user_of("example.test")
    waiting = [Client(server, ATTACKER) for _ in range(4)]
    bystander = Client(server, BYSTANDER)
    assert all(client.line().startswith(b"* OK") for client in [*waiting, bystander])
    since = len(server.log)
    guess(server, ATTACKER, strangers())
    server.wait_for(r"192\.0\.2\.66 is banned for 3600 seconds: tried 4 names within 10 minutes", since=since)
    eventually(lambda: is_served_by_none(server, ATTACKER))
    assert all(is_served(server, BYSTANDER) for _ in range(10))
    assert [client.line() for client in waiting] == [b""] * 4, "those that have not logged in end"
    assert bystander.log_in(user, password).startswith(b"a OK")
    lines = re.findall(
        r"guess v1 peer=192\.0\.2\.66 user=nobody\d@example\.test protocol=imap id=\S{4}-\S{4}\n", server.log
    )
    assert len(lines) == NAMES
    ids = set(re.findall(r"guess v1 .* id=(\S+)", server.log))
    refs = set(re.findall(r"login-failed .* ref=(\S+)", server.log))
    assert ids >= refs, "the id of the refusal, for those that were answered"
    [row] = listed(server)
    assert (row["client"], row["by"], row["times"]) == (ATTACKER, "server", 1)
    assert "banned clients: 1" in cli(server, "status").stdout
    assert len(re.findall("event=banned", server.log)) == 1
    for client in (*waiting, bystander):
        client.__exit__()


def test_bans_are_kept_over_a_restart_and_after_kill(server: Server) -> None:
    cli(server, "bans", "add", ATTACKER, "--reason", "a scanner", "--for", "2h")
    cli(server, "bans", "add", "2001:db8::7")
    for peer in (ATTACKER, "2001:db8::8"):
        eventually(lambda peer=peer: is_served_by_none(server, peer))  # type: ignore[misc]
    eventually(lambda: any(b"2001:db8::/64" in found.read_bytes() for found in server.dir.rglob("bans")))
    [path] = server.dir.rglob("bans")
    server.stop(signal.SIGKILL)
    server.start()
    assert is_served_by_none(server, ATTACKER)
    assert is_served_by_none(server, "2001:db8::8")
    assert is_served(server, BYSTANDER)
    server.stop()
    server.start()
    assert {(row["client"], row["reason"]) for row in listed(server)} == {
        (ATTACKER, "a scanner"),
        ("2001:db8::/64", ""),
    }
    cli(server, "bans", "remove", ATTACKER)
    eventually(lambda: all(is_served(server, ATTACKER) for _ in range(10)))
    assert cli(server, "bans", "remove", ATTACKER, check=False).returncode == 1
    server.stop()
    path.write_bytes(b"{half of a")
    server.start()
    assert "is set aside as" in server.log
    assert is_served(server, "2001:db8::8")
    assert path.with_suffix(".damaged").read_bytes() == b"{half of a"


def test_a_network_of_a_user_and_one_of_never_are_not_banned_and_a_reload_takes_never(server: Server) -> None:
    user, password = server.user_of("example.test")
    with Client(server, ATTACKER) as client:
        client.line()
        assert client.log_in(user, password).startswith(b"a OK")
    for peer in (ATTACKER, OTHER):
        guess(server, peer, strangers(2 * NAMES))
        # With the line of a guess it is decided whether it leads to a ban.
        eventually(lambda peer=peer: server.log.count(f"guess v1 peer={peer} ") == 2 * NAMES)  # type: ignore[misc]
    assert listed(server) == []
    assert is_served(server, ATTACKER)
    assert is_served(server, OTHER)
    refused = cli(server, "bans", "add", ATTACKER, check=False)
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    for never in (OTHER, "127.0.0.1"):
        refused = cli(server, "bans", "add", never, "--force", check=False)
        assert refused.returncode == 1
        assert "is never banned" in refused.stderr
    assert listed(server) == []
    cli(server, "bans", "add", ATTACKER, "--force")
    eventually(lambda: is_served_by_none(server, ATTACKER))
    server.replace('never = ["203.0.113.0/24"]', 'never = ["192.0.2.0/24"]')
    assert "reloaded" in server.hang_up()
    eventually(lambda: all(is_served(server, ATTACKER) for _ in range(10)))
    assert "the ban of 192.0.2.66 is lifted: it is never banned now" in server.log
    guess(server, OTHER, strangers())
    server.wait_for(r"203\.0\.113\.7 is banned")


def test_a_server_that_asks_for_its_clients_is_refused_those_that_are_banned(server: Server) -> None:
    user, password = server.user_of("example.test")
    with Peer(server) as peer:
        for number, name in enumerate(strangers(), 1):
            answer = peer.ask(name, "wrong", f"service=smtp\trip={ATTACKER}", number)
            assert answer.startswith(f"FAIL\t{number}\t")
        server.wait_for("192.0.2.66 is banned")
        assert len(re.findall(r"guess v1 peer=192\.0\.2\.66 \S+ protocol=(?:auth|submission) ", server.log)) == NAMES
        eventually(lambda: is_served_by_none(server, ATTACKER))
        assert peer.ask(user, password, f"service=smtp\trip={BYSTANDER}", 20).startswith("OK\t20\t")
    with Peer(server) as peer:
        answer = peer.ask(user, password, f"service=smtp\trip={ATTACKER}", 1)
        assert not answer.startswith("OK"), answer
        assert "wrong user name" not in answer


def test_a_worker_that_begins_has_the_bans(server: Server) -> None:
    cli(server, "bans", "add", ATTACKER)
    for worker in _workers(server):
        if "shard" in worker:
            since = len(server.log)
            os.kill(worker["pid"], signal.SIGKILL)
            server.wait_for("it is replaced", since=since)
    eventually(lambda: all(worker["state"] == "serving" for worker in _workers(server)))
    assert not any(is_served(server, ATTACKER) for _ in range(20))
    assert all(is_served(server, BYSTANDER) for _ in range(10))


def _workers(server: Server) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(cli(server, "status", "--json", check=False).stdout)["workers"]
    return rows


def test_the_same_wrong_password_bans_nobody_and_is_one_line(server: Server) -> None:
    user, _password = server.user_of("example.test")
    for _ in range(8):
        with Client(server, ATTACKER) as client:
            client.line()
            assert b"(ref " in client.log_in(user, "an old password")
    with Client(server, ATTACKER) as client:
        client.line()
        assert b"(ref " in client.log_in(user, "another one")
    eventually(lambda: len(re.findall("guess v1 ", server.log)) == 2)
    assert listed(server) == []
    assert len(re.findall("login-failed ", server.log)) == 9


def test_a_forged_name_cannot_look_like_another_line_and_a_password_as_name_is_not_written(server: Server) -> None:
    with Client(server, BYSTANDER) as client:
        client.line()
        client.log_in("x\nguess v1 peer=192.0.2.1 user=y protocol=imap id=1", "wrong")
        client.log_in("correct horse battery", "")
    server.wait_for(r"guess v1 peer=198\.51\.100\.1 user=\"\(\d+ characters\)\" protocol=imap id=\S+\n")
    assert "peer=192.0.2.1" not in server.log
    assert "correct horse" not in server.log


def test_the_one_address_of_a_proxy_without_a_header_is_not_banned(tmp_path: Path) -> None:
    """All clients come from one address: before the first login, where it is private, and after a login."""
    with Server(
        tmp_path / "server", append=EXTRA, workers=0, edit={"[auth]\n": "[auth]\nfailure_delay_max = 1\n"}
    ) as server:
        user, password = server.user_of("example.test")
        proxies = ("192.0.2.1", "10.1.2.3")
        for peer in proxies:
            guess(server, peer, strangers(2 * NAMES))
            eventually(lambda peer=peer: server.log.count(f"guess v1 peer={peer} ") == 2 * NAMES)  # type: ignore[misc]
        with Client(server, proxies[0]) as client:
            client.line()
            assert client.log_in(user, password).startswith(b"a OK")
        for peer in proxies:
            since = len(server.log)
            guess(server, peer, [f"again{name}" for name in strangers(2 * NAMES)])
            server.wait_for(f"guess v1 peer={peer} user=again", since=since)
        assert listed(server) == []
        assert all(is_served(server, peer) for peer in proxies)
        guess(server, "203.0.114.1", strangers())
        server.wait_for(r"203\.0\.114\.1 is banned")
