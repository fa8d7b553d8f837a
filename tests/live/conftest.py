"""A server for all tests of this folder that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server import Server

EXTRA = """
[[listener]]
protocol = "imap"
port = {a}
addresses = ["127.0.0.1"]
allow_cleartext = true

[[listener]]
protocol = "lmtp"
socket = "{dir}/lmtp.socket"

[[listener]]
protocol = "lmtp"
port = {b}
addresses = ["127.0.0.1"]
require_tls = true
"""


def no_bug(log: str) -> None:
    """Neither a bug nor anything that nobody handled."""
    assert "bug session=" not in log, log[-6000:]
    assert "Unhandled" not in log, log[-6000:]
    assert "Traceback" not in log, log[-6000:]


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("live"), append=EXTRA)
    with server:
        yield server
    no_bug(server.log)
