"""What tests of the whole server build on."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.live.client import Client
from tests.server import Server


def test_a_server_whose_port_was_taken_meanwhile_starts_at_others(tmp_path: Path) -> None:
    server = Server(tmp_path)
    taken = server.port("imap")
    with socket.create_server(("127.0.0.1", taken)), server:
        assert server.port("imap") != taken
        with Client(server, "imap") as client:
            client.greeting()
