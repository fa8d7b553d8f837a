"""Right passwords that came in clear text: marked, told, kept over a restart, cleared."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.server import Server


@pytest.fixture(scope="module", params=[0, 2], ids=["alone", "workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("exposures"), workers=request.param)
    with server:
        yield server
    no_bug(server.log)


def listed(server: Server) -> list[dict[str, Any]]:
    told = server.run_cli("exposures", "list", "--json", "--config", str(server.config))
    rows: list[dict[str, Any]] = json.loads(told.stdout)
    return rows


def refused(server: Server, user: str, password: str) -> bytes:
    """The answer to a LOGIN before TLS."""
    with Client(server, "imap") as client:
        client.greeting()
        return client.ask(f'a LOGIN "{user}" "{password}"\r\n'.encode())


def test_only_right_ones_are_marked_and_stay_so(server: Server) -> None:
    user, password = server.user_of("example.test")
    assert listed(server) == []
    answers = {
        refused(server, user, password),
        refused(server, "nobody@example.test", password),
        refused(server, server.user_of("example.org")[0], "wrong"),
    }
    assert len(answers) == 1
    server.wait_for(rf"password-exposed .*protocol=imap .*user={user} method=LOGIN", seconds=20)
    [row] = listed(server)
    assert (row["user"], row["count"], row["method"], row["peer"]) == (user, 1, "LOGIN", "127.0.0.1")
    assert password not in server.log
    time.sleep(3)
    assert server.log.count("password-exposed") == 1
    refused(server, user, password)
    shown = server.run_cli("status", "--config", str(server.config))
    assert "users with exposed passwords: 1" in shown.stderr
    server.stop()
    server.start()
    assert [each["user"] for each in listed(server)] == [user]
    assert (
        f"cleared {user}" in server.run_cli("exposures", "clear", user.upper(), "--config", str(server.config)).stderr
    )
    assert listed(server) == []
    path = server.dir / "state" / "exposures.json"
    end = time.monotonic() + 10
    while json.loads(path.read_text())["exposures"] and time.monotonic() < end:
        time.sleep(0.1)
    assert json.loads(path.read_text()) == {"exposures": []}
