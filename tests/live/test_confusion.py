"""SSL/TLS, STARTTLS and clear text taken for one another, on live ports: each mistake ends soon and in words."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.client import GREETING, Client, eventually
from tests.live.conftest import no_bug
from tests.server import Server

EXTRA = """
[[listener]]
protocol = "imap"
port = {a}
addresses = ["127.0.0.1"]
greeting_delay = 5
early_tls = "refuse"

[[listener]]
protocol = "pop3"
port = {b}
addresses = ["127.0.0.1"]
greeting_delay = 5
proxy_from = ["127.0.0.0/8"]

[[listener]]
protocol = "imaps"
port = {c}
addresses = ["127.0.0.1"]
proxy_from = ["127.0.0.0/8"]

[limits]
login_time = 14
"""
"""The time of a login is also the longest of a handshake; it is longer than what is taken for silence."""
HELD = {f'protocol = "{name}"\n': f'protocol = "{name}"\ngreeting_delay = 5\n' for name in ("submission", "pop3")}
PROXY = b"PROXY TCP4 192.0.2.77 192.0.2.1 5000 993\r\n"
SAID = {"imaps": b"* BYE Port ", "pop3s": b"-ERR Port ", "submissions": b"421 4.7.0 Port "}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("confusion"), append=EXTRA, edit=HELD)
    with server:
        yield server
    no_bug(server.log)


@pytest.mark.parametrize("family", ["pop3", "submission"])
def test_tls_at_once_at_a_port_of_starttls(server: Server, family: str) -> None:
    def took() -> float:
        began = time.monotonic()
        with Client(server, family, tls=True) as client:
            assert client.greeting().startswith(GREETING[family])
        return time.monotonic() - began

    eventually(lambda: took() < 4, 60)  # nobody waits for the delay's end, a busy machine is slow at times


def test_tls_at_once_behind_a_proxy(server: Server) -> None:
    with Client(server, "pop3", port=server.spare_ports[1], tls=True, before=PROXY) as client:
        client.greeting()
        client.send(b"QUIT\r\n")
        assert client.rest().startswith(b"+OK")


def test_tls_at_once_refused(server: Server) -> None:
    before = len(server.log)
    with pytest.raises(ssl.SSLError, match=r"(?i)unexpected.message"):
        Client(server, "imap", port=server.spare_ports[0], tls=True)
    server.wait_for("tls-at-starttls-port", since=before, seconds=20)


@pytest.mark.parametrize("family", ["imap", "pop3", "submission"])
def test_tls_behind_the_greeting(server: Server, family: str) -> None:
    before = len(server.log)
    with Client(server, family) as client:
        client.greeting()
        client.send(b"\x16\x03\x01\x02\x00\x01\x00")
        assert client.rest() == b""
    server.wait_for("tls-at-starttls-port", since=before, seconds=20)


@pytest.mark.parametrize("protocol", list(SAID))
@pytest.mark.parametrize("pieces", [[b"a NOOP\r\n"], [b"a", b" NO", b"OP\r", b"\n"]])
def test_clear_text_at_a_port_of_implicit_tls(server: Server, protocol: str, pieces: list[bytes]) -> None:
    with Client(server, protocol, tls=False) as client:
        for piece in pieces:
            client.send(piece)
            time.sleep(0.02)
        said = client.rest()
    family = protocol.removesuffix("s")
    assert said.startswith(SAID[protocol] + b"%d " % server.port(protocol))
    assert b" to %d for STARTTLS" % server.port(family) in said
    assert said.count(b"\r\n") == 1


def test_clear_text_at_the_port_of_https(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port("https")), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: mail.example.test\r\n\r\n")
        said = b""
        while piece := client.recv(4096):
            said += piece
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"https://" in said


def test_silence_at_a_port_of_implicit_tls_behind_a_proxy_too(server: Server) -> None:
    before = len(server.log)
    with (
        Client(server, "submissions", tls=False) as one,
        Client(server, "imaps", port=server.spare_ports[2], tls=False, before=PROXY) as two,
        Client(server, "pop3s", tls=False, before=b"\x16") as begun,
    ):
        assert one.rest().startswith(SAID["submissions"])
        assert two.rest().startswith(SAID["imaps"])
        assert begun.rest() == b"", "a ClientHello may have begun"
    line = server.wait_for(r"cleartext-at-tls-port .*peer=192\.0\.2\.77 .*sends nothing", since=before, seconds=20)
    assert line is not None


def test_tls_at_a_port_of_implicit_tls_behind_a_proxy(server: Server) -> None:
    with Client(server, "imaps", port=server.spare_ports[2], before=PROXY) as client:
        client.greeting()


def test_they_are_counted(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port("metrics")), timeout=20) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = b""
        while piece := client.recv(65536):
            page += piece
    assert b'mailserver_tls_at_starttls_port_total{protocol="imap",tls="none"} 2.0' in page
    assert b'mailserver_cleartext_at_tls_port_total{protocol="pop3s",tls="none"} 2.0' in page


def test_a_reload_changes_the_delay(server: Server, tmp_path: Path) -> None:
    text = server.config.read_text()
    server.config.write_text(text.replace('protocol = "submission"\ngreeting_delay = 5\n', 'protocol = "submission"\n'))
    try:
        server.run_cli("reload", "--config", str(server.config))

        def took() -> float:
            began = time.monotonic()
            with Client(server, "submission") as client:
                client.greeting()
            return time.monotonic() - began

        eventually(lambda: took() < 4, 60)
    finally:
        server.config.write_text(text)
