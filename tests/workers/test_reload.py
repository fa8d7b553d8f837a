"""Reloads and renewals while clients connect: none fails, no session ends, and all workers say the same."""

from __future__ import annotations

import json
import os
import socket
import ssl
from pathlib import Path

import pytest

from tests.live.client import Client, eventually
from tests.live.test_reload import serial, swap_certificate
from tests.server import Server
from tests.workers.processes import Load, alive, held_in_each, replace_all, workers, works, zygotes


def serials(server: Server, count: int = 12) -> set[str]:
    """What so many connections see, over all workers."""
    return {serial(server) for _ in range(count)}


def test_reloads_under_load_lose_no_connection_and_no_session(server: Server) -> None:
    sessions = held_in_each(server, 2)
    with Load(server) as load:
        for _ in range(4):
            load.more()
            (before,) = serials(server)
            swap_certificate(server)
            answer = server.run_cli("reload", "--config", str(server.config)).stdout
            assert answer.count("mail.example.test: taken up") == 1
            (after,) = serials(server)
            assert after != before
        load.more()
    assert not load.faults
    assert set(workers(server)) == set(sessions), "a reload replaces no worker"
    assert all(works(client) for client in sessions.values())


def test_a_worker_made_after_a_reload_serves_what_was_taken_up(server: Server) -> None:
    swap_certificate(server)
    server.hang_up()
    (renewed,) = serials(server)
    replace_all(server)
    assert serials(server) == {renewed}


def test_a_worker_made_after_a_reload_keeps_what_waits_for_the_next_start(server: Server) -> None:
    other = server.dir / "other-mail"
    other.mkdir()
    server.replace(f'root = "{server.dir}/mail"', f'root = "{other}"')
    for _ in range(2):
        assert "[mail] root: takes effect at the next start" in server.hang_up()
    replace_all(server)
    for client in held_in_each(server, 2).values():
        client.send(b"c CREATE made\r\n")
        client.until(rb"c ")
    assert not list(other.iterdir())


def test_new_listeners_are_served_by_all_and_old_ones_by_none(server: Server) -> None:
    port = server.spare_ports[0]
    text = server.config.read_text()
    listener = f'\n[[listener]]\nprotocol = "imaps"\nport = {port}\naddresses = ["127.0.0.1"]\n'
    more = f'\n[[listener]]\nprotocol = "lmtp"\nsocket = "{server.dir}/lmtp"\n'
    server.config.write_text(text + listener + more)
    said = server.hang_up()
    assert said.count(f"serving imaps on 127.0.0.1:{port} (implicit TLS)") == 1
    for _ in range(12):
        with Client(server, "imaps", port=port) as client:
            client.greeting()
    replace_all(server)
    for _ in range(12):
        with Client(server, "imaps", port=port) as client:
            client.greeting()
        with socket.socket(socket.AF_UNIX) as lmtp:
            lmtp.settimeout(20)
            lmtp.connect(f"{server.dir}/lmtp")
            assert lmtp.recv(100).startswith(b"220")
    server.config.write_text(text)
    assert f"no longer serving imaps on 127.0.0.1:{port}" in server.hang_up()
    eventually(lambda: refused(server, port))
    assert not os.path.exists(f"{server.dir}/lmtp")


def refused(server: Server, port: int) -> bool:
    try:
        Client(server, "imaps", port=port, tls=False).socket.close()
    except ConnectionRefusedError:
        return True
    return False


def test_many_new_places_need_no_higher_limit_of_open_files(tmp_path: Path) -> None:
    """550 of them for two workers are more sockets than the master has been allowed for those of its start."""
    server = Server(tmp_path, workers=2)
    server.wrapper = ["sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh"]
    addresses = [f"127.0.{1 + number // 200}.{1 + number % 200}" for number in range(550)]
    port = server.spare_ports[0]
    with server:
        listener = f'\n[[listener]]\nprotocol = "imap"\nport = {port}\naddresses = {json.dumps(addresses)}\n'
        server.config.write_text(server.config.read_text() + listener)
        said = server.hang_up()
        assert said.count(f":{port} (STARTTLS)") == len(addresses)
        replace_all(server)
        for address in (addresses[0], addresses[-1]):
            with socket.create_connection((address, port), 20) as client:
                assert client.recv(100).startswith(b"* OK")
    # All of them at the start.
    with server:
        assert len(workers(server)) == 2


def test_what_one_worker_cannot_take_up_nobody_does(server: Server) -> None:
    with socket.create_server(("127.0.0.1", server.spare_ports[1])):
        text = server.config.read_text()
        a, b, _c = server.spare_ports
        more = "".join(
            f'\n[[listener]]\nprotocol = "imaps"\nport = {port}\naddresses = ["127.0.0.1"]\n' for port in (a, b)
        )
        server.config.write_text(text + more)
        said = server.hang_up()
    assert f"cannot listen on 127.0.0.1:{b}" in said
    assert "nothing was taken up" in said
    assert refused(server, a)
    server.config.write_text(text + more)
    assert "] reloaded" in server.hang_up()
    assert not refused(server, a)


def test_another_minimum_version_makes_new_workers_while_sessions_go_on(server: Server) -> None:
    sessions = held_in_each(server, 2)
    (before,) = zygotes(server)
    with Load(server) as load:
        load.more()
        server.replace("[tls]\n", '[tls]\nminimum_version = "1.3"\n')
        assert "[tls]: taken up" in server.hang_up()
        eventually(lambda: len(zygotes(server)) == 2, 40)
        eventually(lambda: len(workers(server)) == 4, 40)
        load.more(40)
    assert not load.faults
    assert all(works(client) for client in sessions.values())

    def old_version() -> bool:
        context = ssl.create_default_context(cafile=str(server.ca))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", server.port("imaps"))) as plain:
            try:
                context.wrap_socket(plain, server_hostname="mail.example.test").close()
            except (ssl.SSLError, OSError):
                return False
        return True

    assert not any(old_version() for _ in range(8))
    for client in sessions.values():
        client.socket.close()
    eventually(lambda: not alive(before), 40)
    assert len(workers(server)) == 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_of_tls_resume_at_any_worker_and_after_a_reload(server: Server, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(server.ca))
    context.minimum_version = context.maximum_version = version

    def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with (
            socket.create_connection(("127.0.0.1", server.port("imaps")), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="mail.example.test", session=session) as secured,
        ):
            assert secured.recv(100).startswith(b"* OK")  # the ticket of TLS 1.3 comes before it
            return secured.session, bool(secured.session_reused)

    session, reused = connect(None)
    assert not reused
    # One of two workers, twelve times: that it was always the one that made the ticket has odds of 1 to 4096.
    assert all(connect(session)[1] for _ in range(12))
    swap_certificate(server)
    server.hang_up()
    assert all(connect(session)[1] for _ in range(12))
    replace_all(server)
    assert all(connect(session)[1] for _ in range(12)), "a worker made after the reload has other keys"


def test_a_listener_has_settings_of_its_own_at_all_workers(server: Server) -> None:
    """A changed one makes new workers, as all must have one base context for it; sessions resume at each of them."""
    port = server.spare_ports[0]
    listener = f'\n[[listener]]\nprotocol = "imaps"\nport = {port}\naddresses = ["127.0.0.1"]\n'
    server.config.write_text(server.config.read_text() + listener + 'maximum_version = "1.2"\n')
    (before,) = zygotes(server)
    server.hang_up()
    eventually(lambda: not alive(before) and len(workers(server)) == 2, 40)
    context = ssl.create_default_context(cafile=str(server.ca))

    def connect(session: ssl.SSLSession | None) -> tuple[str | None, ssl.SSLSession | None, bool]:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="mail.example.test", session=session) as secured,
        ):
            assert secured.recv(100).startswith(b"* OK")
            return secured.version(), secured.session, bool(secured.session_reused)

    version, session, _reused = connect(None)
    assert version == "TLSv1.2"
    assert all(connect(session)[2] for _ in range(12))
    swap_certificate(server)
    server.hang_up()
    assert all(connect(session)[2] for _ in range(12)), "a reload of certificates alone leaves the base as it is"
    with Client(server, "imaps") as client:
        assert client.socket.version() == "TLSv1.3"
