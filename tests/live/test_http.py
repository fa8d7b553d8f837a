"""HTTP and HTTPS beside the mail protocols: the same certificates, limits and end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

import pytest

from tests.live.client import counted
from tests.server import Server

EXTRA = """
[[listener]]
protocol = "http"
socket = "{dir}/http.socket"

[[listener]]
protocol = "https"
port = {a}
addresses = ["127.0.0.1"]
proxy_from = ["127.0.0.1"]
"""
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def ask(server: Server, octets: bytes, protocol: str = "http", *, name: str | None = None) -> bytes:
    """All that comes back until the end."""
    with socket.create_connection(("127.0.0.1", server.port(protocol)), timeout=30) as plain:
        opened: socket.socket = plain
        if name is not None:
            opened = ssl.create_default_context(cafile=str(server.ca)).wrap_socket(plain, server_hostname=name)
        opened.sendall(octets)
        got = b""
        with contextlib.suppress(ConnectionError):
            while data := opened.recv(65536):
                got += data
        return got


@pytest.mark.parametrize("domain", ["example.test", "example.org"])
def test_https_under_the_certificate_of_the_name(shared: Server, domain: str) -> None:
    got = ask(shared, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), "https", name=f"mail.{domain}")
    assert got.startswith(b"HTTP/1.1 200 "), got
    assert got.endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize(
    "octets",
    [b"a001 CAPABILITY\r\n\r\n", b"EHLO x\r\nMAIL FROM:<>\r\n\r\n", b"USER anna\r\n\r\n", b"\0" * 100 + b"\r\n\r\n"],
)
@pytest.mark.parametrize("protocol", ["http", "https"])
def test_no_mail_command_is_answered(shared: Server, protocol: str, octets: bytes) -> None:
    got = ask(shared, octets, protocol, name="mail.example.test" if protocol == "https" else None)
    assert got.startswith(b"HTTP/1.1 400 "), got
    assert got.count(b"HTTP/1.1") == 1


def test_a_request_in_clear_text_at_the_tls_port_is_told_where_it_is(shared: Server) -> None:
    assert ask(shared, GET, "https").startswith(b"HTTP/1.1 400 ")


def test_many_requests_on_many_connections(shared: Server) -> None:
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", shared.port("http")), timeout=30))
            for _ in range(20)
        ]
        for each in opened:
            each.sendall(GET * 30)
        for each in opened:
            got = b""
            while got.count(b"\r\n\r\nok\n") < 30:
                data = each.recv(65536)
                assert data, got[-500:]
                got += data


def test_one_address_has_its_share_of_connections(tmp_path_factory: pytest.TempPathFactory) -> None:
    limits = "\n[limits]\nunauthenticated_per_address = 5\n"
    with Server(tmp_path_factory.mktemp("flood"), append=limits) as server, contextlib.ExitStack() as stack:
        port = server.port("http")
        for _ in range(5):
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            opened.sendall(GET)
            assert opened.recv(65536).startswith(b"HTTP/1.1 200 ")
        counted()
        refused = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        assert refused.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert refused.recv(65536) == b""
        began = time.monotonic()
    # They are told nothing, and hold nobody up.
    assert time.monotonic() - began < 20


def test_a_unix_socket_a_proxy_and_a_reload(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Server(tmp_path_factory.mktemp("places"), append=EXTRA) as server:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.settimeout(30)
            opened.connect(str(server.dir / "http.socket"))
            opened.sendall(GET)
            assert opened.recv(65536).startswith(b"HTTP/1.1 200 ")
        for client, status in (("127.0.0.1", b"200"), ("192.0.2.7", b"403")):
            with socket.create_connection(("127.0.0.1", server.spare_ports[0]), timeout=30) as plain:
                plain.sendall(f"PROXY TCP4 {client} 127.0.0.1 4000 443\r\n".encode())
                context = ssl.create_default_context(cafile=str(server.ca))
                with context.wrap_socket(plain, server_hostname="mail.example.test") as secured:
                    secured.sendall(GET)
                    assert secured.recv(65536).startswith(b"HTTP/1.1 " + status)
        # A connection that is open goes on.
        with socket.create_connection(("127.0.0.1", server.port("http")), timeout=30) as kept:
            kept.sendall(GET)
            assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
            server.config.write_text(server.config.read_text() + "\n[http]\nmetrics_from = []\n")
            server.run_cli("reload", "--config", str(server.config))
            assert ask(server, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
            kept.sendall(GET)
            assert kept.recv(65536).startswith(b"HTTP/1.1 ")
