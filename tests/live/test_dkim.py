"""Rotation of DKIM keys while sessions are open: each message has signatures that the records of its time verify."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import dkim
import pytest

from tests.live.client import Client, logged_in
from tests.live.conftest import no_bug
from tests.server import Server

DOMAIN = "example.test"
SESSIONS = 8
"""Sessions at a time: with two workers both have some."""


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("dkim"), workers=request.param) as server:
        yield server
    no_bug(server.log)


def records(server: Server) -> dict[bytes, bytes]:
    """The published records: name -> text."""
    shown = json.loads(server.run_cli("dkim", "show", DOMAIN, "--config", str(server.config), "--json").stdout)
    return {key["name"].rstrip(".").encode(): key["text"].encode() for key in shown["keys"]}


def signing(server: Server) -> set[bytes]:
    """The selectors that sign."""
    shown = json.loads(server.run_cli("dkim", "show", DOMAIN, "--config", str(server.config), "--json").stdout)
    return {key["selector"].encode() for key in shown["keys"] if key["state"] == "signing"}


def send(client: Client, server: Server, subject: str) -> bytes:
    """Submit a message to a user here, and return the file that arrives."""
    for command in (f"MAIL FROM:<anna@{DOMAIN}>", f"RCPT TO:<ben@{DOMAIN}>"):
        assert client.ask(command.encode() + b"\r\n").startswith(b"250")
    assert client.ask(b"DATA\r\n").startswith(b"354")
    text = f"From: anna@{DOMAIN}\r\nTo: ben@{DOMAIN}\r\nSubject: {subject}\r\n\r\nHello\r\n.\r\n"
    assert client.ask(text.encode()).startswith(b"250")
    [found] = [
        data
        for file in (server.maildir(f"ben@{DOMAIN}") / "new").iterdir()
        if f"Subject: {subject}\n".encode() in (data := file.read_bytes().replace(b"\r\n", b"\n"))
    ]
    return re.sub(rb"\n", b"\r\n", found)


def assert_signed(message: bytes, selectors: set[bytes], published: dict[bytes, bytes]) -> None:
    assert set(re.findall(rb"^\ts=([^;]+);", message, re.MULTILINE)) == selectors
    look_up = {name + b".": text for name, text in published.items()} | published
    checked = dkim.DKIM(message)
    assert [checked.verify(idx=index, dnsfunc=lambda name, **_more: look_up.get(name)) for index in (0, 1)] == [
        True
    ] * 2


def test_new_sessions_sign_with_the_new_keys_and_open_ones_with_published_ones(server: Server) -> None:
    before = signing(server)
    sessions = [logged_in(server, "submissions") for _ in range(SESSIONS)]
    for number, client in enumerate(sessions):
        assert_signed(send(client, server, f"before-{number}"), before, records(server))

    server.run_cli("dkim", "rotate", DOMAIN, "--selector", "next", "--config", str(server.config))
    assert signing(server) == before, "DNS does not show the new records"
    assert_signed(send(sessions[0], server, "waiting"), before, records(server))
    server.run_cli("dkim", "rotate", DOMAIN, "--now", "--config", str(server.config))
    after = signing(server)
    assert after == {b"next-rsa", b"next-ed25519"}
    published = records(server)
    assert published.keys() >= {selector + b"._domainkey." + DOMAIN.encode() for selector in before}, "old ones stay"
    for number in range(SESSIONS):
        with logged_in(server, "submissions") as client:
            assert_signed(send(client, server, f"new-{number}"), after, published)
    for number, client in enumerate(sessions):
        assert_signed(send(client, server, f"open-{number}"), before, published)
        client.socket.close()
