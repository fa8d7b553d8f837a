"""A server with two workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import no_bug
from tests.server import Server
from tests.workers.processes import alive, family


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of its own for each test; none of its processes may be left."""
    server = Server(tmp_path_factory.mktemp("workers"), workers=2)
    with server:
        yield server
        left = family(server) if server.process is not None and server.process.poll() is None else []
    assert not [pid for pid in left if alive(pid)], "processes are left"
    no_bug(server.log)
