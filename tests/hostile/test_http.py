"""A browser made to talk to a mail port: neither the request's line nor its header nor its body gets an answer."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.hostile.wire import Client
from tests.server import OFFSETS, Server

MAIL_PROTOCOLS = [protocol for protocol in OFFSETS if protocol not in ("http", "https", "metrics")]
LONG = b"a" * 20_000
REQUESTS = {
    "get": b"GET / HTTP/1.1\r\nHost: mail.example.test\r\nAccept: */*\r\n\r\n",
    "long-url": b"GET /" + LONG + b" HTTP/1.1\r\nHost: mail.example.test\r\nAccept: */*\r\n\r\n",
    "spaces": b"GET /" + b"a b " * 5000 + b" HTTP/1.1\r\nHost: mail.example.test\r\n\r\n",
    "options": b"OPTIONS * HTTP/1.1\r\nHost: mail.example.test\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-0.9": b"GET /\r\n",
    "bare-lf": b"GET / HTTP/1.1\nHost: mail.example.test\n\nx NOOP\nNOOP\n",
    "bare-lf-end": b"GET / HTTP/1.1\nHost: mail.example.test\r\n\r\n",
    "nul": b"POST /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "post": b"POST / HTTP/1.1\r\nHost: mail.example.test\r\nContent-Length: 200\r\n\r\n",
    "long-post": b"POST /" + LONG + b" HTTP/1.1\r\nHost: mail.example.test\r\nContent-Length: 200\r\n\r\n",
}
BODY = (
    b"x NOOP\r\nx CAPABILITY\r\nx LOGIN a b\r\nCAPA\r\nUSER anna\r\nEHLO x\r\nLHLO x\r\nNOOP\r\n"
    b"MAIL FROM:<a@example.test>\r\nx LOGOUT\r\nQUIT\r\n"
)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("protocol", MAIL_PROTOCOLS)
def test_no_answer(server: Server, protocol: str, name: str) -> None:
    with Client(server, protocol, timeout=20) as client:
        client.send_cut(REQUESTS[name])
        with contextlib.suppress(OSError):
            client.send_cut(BODY)
        assert client.to_the_end() == b""


@pytest.mark.parametrize("protocol", ["imaps", "pop3s", "submissions"])
def test_cleartext_on_a_tls_port_gets_no_mail_protocol(server: Server, protocol: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port(protocol)), timeout=30) as raw:
        raw.sendall(REQUESTS["post"] + BODY)
        with contextlib.suppress(ConnectionError):
            answer = b""
            while data := raw.recv(4096):
                answer += data
            # at most a TLS alert: 21, version, two octets of length, level, description
            assert answer == b"" or (answer[0] == 21 and len(answer) == 7), answer
