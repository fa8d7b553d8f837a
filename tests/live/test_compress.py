"""COMPRESS=DEFLATE on real connections: both transports, TLS and STARTTLS, IDLE, large literals, the end."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.deflated import DeflatedSocket
from tests.live.client import Client, logged_in
from tests.live.conftest import no_bug
from tests.server import Server

LARGE = b"Subject: large\r\n\r\n" + b"".join(b"%r\r\n" % random.Random(1).randbytes(30) for _ in range(20_000))


@pytest.fixture(scope="module", params=["auto", "stock"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    edit = {"[server]\n": f'[server]\nworkers = 0\ntransport = "{request.param}"\n'}
    with Server(tmp_path_factory.mktemp("compress"), edit=edit) as server:
        yield server
        no_bug(server.log)


def compress(client: Client) -> DeflatedSocket:
    assert client.ask(b"c COMPRESS DEFLATE\r\n") == b"c OK DEFLATE active\r\n"
    deflated = DeflatedSocket(client.socket)
    client.socket = cast("Any", deflated)
    return deflated


def answer(client: Client, command: bytes) -> bytes:
    client.send(b"x %b\r\n" % command)
    lines = client.until(rb"x ")
    assert lines[-1].startswith(b"x OK"), lines
    return b"".join(lines)


@pytest.mark.parametrize("security", ["implicit", "starttls"])
def test_a_session_with_literals_idle_and_another_session(server: Server, security: str) -> None:
    with Client(server, "imaps" if security == "implicit" else "imap") as client, logged_in(server, "imaps") as other:
        client.greeting()
        if security == "starttls":
            client.upgrade()
        client.log_in(*server.user_of("example.test"))
        answer(other, b"SELECT INBOX")
        deflated = compress(client)
        client.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(LARGE), LARGE))
        client.until(rb"a OK")
        client.send(b"b APPEND INBOX {%d}\r\n" % len(LARGE))
        assert client.line().startswith(b"+ ")
        for at in range(0, len(LARGE), 10_000):
            client.send(LARGE[at : at + 10_000])
        client.send(b"\r\n")
        client.until(rb"b OK")
        count = int(re.findall(rb"\* (\d+) EXISTS", answer(client, b"SELECT INBOX"))[0])
        before = deflated.octets
        assert answer(client, b"FETCH %d BODY.PEEK[]" % count).count(LARGE) == 1
        assert deflated.octets - before < len(LARGE)
        client.send(b"i IDLE\r\n")
        client.until(rb"\+ ")
        answer(other, b"NOOP")
        for flags in (b"\\Flagged", b"\\Seen", b"\\Deleted"):
            answer(other, b"STORE %d FLAGS (%b)" % (count, flags))
            client.until(rb"\* %d FETCH \(FLAGS \(%b" % (count, re.escape(flags)))
        answer(other, b"EXPUNGE")
        client.until(rb"\* %d EXPUNGE" % count)
        client.send(b"DONE\r\n")
        client.until(rb"i OK")
        client.send(b"z LOGOUT\r\n")
        assert client.rest().endswith(b"z OK LOGOUT completed\r\n")


def test_the_answers_are_much_smaller(server: Server) -> None:
    with logged_in(server, "imaps") as client:
        answer(client, b"SELECT INBOX")
        for number in range(100):
            client.send(b"a APPEND INBOX {40+}\r\nSubject: number %04d\r\nFrom: x@y.test\r\n\r\n\r\n" % number)
            client.until(rb"a ")
        deflated = compress(client)
        said = answer(client, b"FETCH 1:* (UID FLAGS ENVELOPE)")
        assert deflated.octets < len(said) / 4


@pytest.mark.parametrize("octets", [b"x NOOP\r\n", b"\xff" * 100, b"\x00\x00\x00\xff\xff" * 20_000])
def test_octets_that_cannot_be_decompressed_end_the_connection_with_bye(server: Server, octets: bytes) -> None:
    with logged_in(server, "imaps") as client:
        below = compress(client).below
        below.sendall(octets)
        assert re.fullmatch(rb"\* BYE the compressed data [a-z ]+\r\n", client.rest())


def test_a_client_that_goes_within_a_block_is_forgotten(server: Server) -> None:
    for end in range(1, 30, 3):
        with logged_in(server, "imaps") as client:
            deflated = compress(client)
            deflated.below.sendall(deflated.compressed(b"a APPEND INBOX {1000+}\r\nFrom: x@example.test\r\n")[:end])


def test_the_closing_line_of_a_kick_is_compressed(server: Server) -> None:
    with logged_in(server, "imaps") as client:
        compress(client)
        answer(client, b"NOOP")
        server.run_cli("kick", "--config", str(server.config), server.user_of("example.test")[0])
        assert client.rest().startswith(b"* BYE ")
