"""SIGHUP and `mailserver reload`: what changed is taken up, sessions go on, what is wrong changes nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator

import pytest

from mailserver.cli.control import ask, server_config
from mailserver.system.atomic_file import replace_file
from mailserver.tls.ca.authority import issue
from tests.live.client import Client, eventually, logged_in
from tests.live.conftest import no_bug
from tests.server import Server


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("reload"), workers=request.param) as server:
        yield server
    no_bug(server.log)


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """As it was before, when the test is over."""
    text = started.config.read_text()
    pairs = {path: path.read_bytes() for path in (started.dir / "certs").iterdir()}
    yield started
    # A reload of the test's may be under way, which must not meet half a file; ours comes when it has ended.
    for path, content in {started.config: text.encode(), **pairs}.items():
        if path.read_bytes() != content:
            replace_file(path, content)
    answer = ask(server_config(started.config), "reload")
    assert answer.ok, answer.lines


def serial(server: Server, name: str = "mail.example.test", protocol: str = "imaps") -> str:
    with Client(server, protocol, name=name) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        certificate = client.socket.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def swap_certificate(server: Server, name: str = "mail.example.test") -> None:
    """A new certificate and key of the demonstration's authority, as a renewal leaves them."""
    authority = (server.ca.read_bytes(), (server.dir / "state/ca/ca.key").read_bytes())
    hosts = [name, "localhost"] if name == "mail.example.test" else [name]
    certificate, key = issue(authority, hosts)
    (server.dir / f"certs/{name}.pem").write_bytes(certificate)
    (server.dir / f"certs/{name}.key").write_bytes(key)


def ok(client: Client, command: bytes = b"n NOOP\r\n") -> bool:
    tag = command.split()[0]
    client.send(command)
    return client.until(tag + b" ")[-1].startswith(tag + b" OK")


def test_a_renewed_certificate_is_served_to_new_connections_while_old_ones_go_on(server: Server) -> None:
    with logged_in(server, "imaps") as before, Client(server, "imap") as plain:
        plain.greeting()
        old, other = serial(server), serial(server, "mail.example.org")
        swap_certificate(server)
        assert serial(server) == old, "taken up without a reload"
        answer = server.run_cli("reload", "--config", str(server.config))
        assert "mail.example.test: taken up" in answer.stdout
        assert "certificates unchanged: 7" in answer.stdout.splitlines()  # of the other domain, and of six sites
        assert serial(server) != old
        assert serial(server, "mail.example.org") == other
        assert ok(before)
        plain.upgrade()  # a connection from before the reload that starts TLS after it sees the new one
        assert isinstance(plain.socket, ssl.SSLSocket)
        certificate = plain.socket.getpeercert()
        assert certificate is not None
        assert certificate["serialNumber"] != old


def test_a_bad_pair_keeps_the_last_good_one_for_its_name_alone(server: Server) -> None:
    old, other = serial(server), serial(server, "mail.example.org")
    swap_certificate(server, "mail.example.org")
    shutil.copy(server.dir / "certs/mail.example.org.key", server.dir / "certs/mail.example.test.key")
    answer = server.run_cli("reload", "--config", str(server.config), check=False)
    assert answer.returncode == 1
    assert "mail.example.test: refused" in answer.stdout
    assert serial(server) == old
    assert serial(server, "mail.example.org") != other
    told = server.hang_up()
    assert "mail.example.test: refused" in told
    assert "[mailserver#warn] reload: something was not taken up" in told
    assert serial(server) == old


def test_a_changed_users_file_counts_without_a_reload_and_at_once_with_one(server: Server) -> None:
    def answer() -> bytes:
        with Client(server, "imaps") as client:
            client.greeting()
            return client.try_login("zoe@example.test", "new word 1")

    arguments = ("--config", str(server.config), "zoe@example.test")
    server.run_cli("user", "add", *arguments, text="new word 1\nnew word 1\n")
    eventually(lambda: answer().startswith(b"a OK"))
    server.run_cli("user", "disable", *arguments)
    server.run_cli("reload", "--config", str(server.config))
    assert answer().startswith(b"a NO")


def test_limits_listeners_and_settings_are_taken_up(server: Server) -> None:
    port = server.spare_ports[0]
    listener = f'\n[[listener]]\nprotocol = "pop3s"\nport = {port}\naddresses = ["127.0.0.1"]\n'
    text = server.config.read_text()
    pop3s = f'[[listener]]\nprotocol = "pop3s"\nport = {server.port("pop3s")}\naddresses = ["127.0.0.1", "::1"]\n'
    assert pop3s in text
    with logged_in(server, "pop3s") as old, logged_in(server, "imaps") as imap:
        server.config.write_text(text.replace(pop3s, "") + listener + "\n[limits]\nsessions_per_user = 1\n")
        said = server.hang_up()
        assert f"serving pop3s on 127.0.0.1:{port}" in said
        assert f"no longer serving pop3s on [::1]:{server.port('pop3s')}" in said
        assert old.ask(b"NOOP\r\n").startswith(b"+OK")
        assert ok(imap)
        for host in ("127.0.0.1", "::1"):
            with pytest.raises(ConnectionRefusedError):
                Client(server, "pop3s", host=host, tls=False)
        with Client(server, "pop3s", port=port) as new:
            new.greeting()
            assert b"SYS/TEMP" in new.try_login(*server.user_of("example.test"))
        old.ask(b"QUIT\r\n")
    # And back: the port was really given up, and can be had again.
    server.config.write_text(text)
    server.hang_up()
    with logged_in(server, "pop3s"):
        pass


def test_a_changed_listener_keeps_its_socket(server: Server) -> None:
    """Nobody who connects meanwhile is turned away, and a port below 1024 needs no root."""
    assert server.process is not None
    with Client(server, "imap") as before:
        before.greeting()
        server.replace(
            f'protocol = "imap"\nport = {server.port("imap")}\n',
            f'protocol = "imap"\nport = {server.port("imap")}\nallow_cleartext = true\n',
        )
        server.process.send_signal(signal.SIGHUP)
        probes = [Client(server, "imap") for _ in range(30)]
        server.hang_up()
        with Client(server, "imap") as after:
            assert b"LOGINDISABLED" not in after.greeting()
            after.log_in(*server.user_of("example.test"))
        for probe in probes:
            with probe:
                assert probe.line().startswith(b"* OK")
                assert ok(probe)
        assert b"[PRIVACYREQUIRED]" in before.try_login(*server.user_of("example.test"))


def test_many_reloads_lose_no_connection(server: Server) -> None:
    assert server.process is not None
    with logged_in(server, "imaps") as old:
        for number in range(6):
            old_words, new_words = ("# Served", "# Serves") if number % 2 == 0 else ("# Serves", "# Served")
            server.replace(old_words, new_words)
            server.process.send_signal(signal.SIGHUP)
            for _ in range(5):
                with logged_in(server, "imaps") as new:
                    assert ok(new)
        assert ok(old)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[mail]", "[mail]\nrooot = 1", "did you mean 'root'"),
        ("[tls]", "[tls", "Expected"),
        ('protocol = "imaps"', 'protocol = "imapx"', "imaps"),
        ("backends = [", 'backends = ["file:/nowhere/users", ', "/nowhere/users"),
    ],
)
def test_a_broken_configuration_changes_nothing_and_says_why(server: Server, old: str, new: str, why: str) -> None:
    serial_before = serial(server)
    good = server.config.read_text()
    swap_certificate(server)
    server.config.write_text(good.replace(old, new, 1) + "\n[limits]\nsessions_per_user = 1\n")
    said = server.hang_up()
    assert why in said
    assert "nothing was taken up" in said
    assert serial(server) == serial_before
    with logged_in(server, "imaps") as one, logged_in(server, "imaps") as two:
        assert ok(one)
        assert ok(two)
    server.config.write_text(good)
    assert "reloaded" in server.hang_up()
    assert serial(server) != serial_before


def test_a_listener_that_cannot_be_bound_refuses_the_whole(server: Server) -> None:
    a, b, _c = server.spare_ports
    text = server.config.read_text()
    with contextlib.closing(socket.create_server(("127.0.0.1", a))):
        more = "".join(
            f'\n[[listener]]\nprotocol = "imaps"\nport = {port}\naddresses = ["127.0.0.1"]\n' for port in (b, a)
        )
        path = server.dir / "refused"
        more += f'\n[[listener]]\nprotocol = "lmtp"\nsocket = "{path}"\n'
        server.config.write_text(text + more + "\n[limits]\nsessions_per_user = 1\n")
        said = server.hang_up()
    assert not path.exists()
    assert f"cannot listen on 127.0.0.1:{a}" in said
    assert "another program has it" in said
    assert "nothing was taken up" in said
    with pytest.raises(ConnectionRefusedError):
        Client(server, "imaps", port=b, tls=False)
    with logged_in(server, "imaps"), logged_in(server, "imaps"):
        pass
    server.hang_up()
    with Client(server, "imaps", port=b) as client:
        client.greeting()


def test_what_needs_a_restart_is_told(server: Server) -> None:
    other = server.dir / "other-mail"
    other.mkdir()
    server.replace(f'root = "{server.dir}/mail"', f'root = "{other}"')
    assert "[mail] root: takes effect at the next start" in server.hang_up()


def test_the_control_socket_answers_anything(server: Server) -> None:
    for request, ok in (
        (b"nonsense\n", b"false"),
        (b'{"do": ["reload"]}\n', b"false"),
        (b"[" * 60000 + b"\n", b"false"),
        (b'{"do": "stop"}\n', b"false"),
        (b'{"do": "reload"}\n{"do": "stop"}\n', b"true"),  # one request a connection: the second is not read
    ):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(20)
            control.connect(f"{server.dir}/run/control")
            control.sendall(request)
            with control.makefile("rb") as file:
                assert b'"ok": ' + ok in file.readline()
                assert file.read() == b""
    assert os.stat(f"{server.dir}/run/control").st_mode & 0o777 == 0o600
