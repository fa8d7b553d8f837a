"""What an idle client costs: the promise is 100 KiB for a TLS connection in IDLE with an INBOX of 1,000 messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.client import Client, memory
from tests.server import Server

PROMISE = 100 * 1024
CONNECTIONS = 100
LARGE = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 30_000


def idle(server: Server, user: str) -> Client:
    client = Client(server, "imaps")
    client.greeting()
    client.log_in(user, server.accounts[user])
    client.send(b"a SELECT INBOX\r\n")
    client.until(rb"a OK")
    client.send(b"b UID FETCH 1 BODY.PEEK[]\r\n")  # whatever a large answer needs is given back
    assert len(b"".join(client.until(rb"b OK"))) > len(LARGE)
    client.send(b"c IDLE\r\n")
    client.until(rb"\+")
    return client


@pytest.mark.slow
def test_an_idle_connection_takes_what_is_promised(tmp_path: Path) -> None:
    limits = f"[limits]\nsessions_per_user = {2 * CONNECTIONS}\nunauthenticated_per_address = {2 * CONNECTIONS}\n\n"
    server = Server(tmp_path, edit={"[mail]\n": limits + "[mail]\n"}, workers=0, preloaded=False)
    user, _password = server.user_of("example.org")
    inbox = server.maildir(user)
    for name in [path.name for path in inbox.glob("cur/*")]:
        (inbox / "cur" / name).unlink()
    for number in range(1000):
        content = b"Subject: small\r\n\r\nx\r\n" if number else LARGE
        (inbox / f"new/1700000{number:03}.M1P1.example").write_bytes(content)
    with server:
        opened = [idle(server, user) for _ in range(5)]
        before = memory(server.process.pid) if server.process else 0
        opened += [idle(server, user) for _ in range(CONNECTIONS)]
        assert server.process is not None
        each = (memory(server.process.pid) - before) / CONNECTIONS
        for client in opened:
            client.socket.close()
    assert each < PROMISE, each
