"""Right passwords that came in clear text: marked, told, kept over a restart, cleared."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from tests.cli.test_administration import documented
from tests.live.client import Client, eventually
from tests.live.conftest import no_bug
from tests.server import Server

AUTH = {"imap": "a AUTHENTICATE", "pop3": "AUTH", "submission": "AUTH"}
REFUSAL = {"imap": b"a NO [PRIVACYREQUIRED] ", "pop3": b"-ERR ", "submission": b"530 5.7.0 "}
WAYS = [
    ("imap", "LOGIN", 'a LOGIN "{user}" "{password}"'),
    ("pop3", "USER", "USER {user}\r\nPASS {password}"),
    *((family, "PLAIN", f"{auth} PLAIN {{plain}}") for family, auth in AUTH.items()),
    *((family, "PLAIN", f"{auth} PLAIN\r\n{{plain}}") for family, auth in AUTH.items()),
    *((family, "LOGIN", f"{auth} LOGIN {{name}}\r\n{{secret}}") for family, auth in AUTH.items()),
    *((family, "LOGIN", f"{auth} LOGIN\r\n{{name}}\r\n{{secret}}") for family, auth in AUTH.items()),
]
"""Each way to send a password before TLS: the family, the method in the log, and the lines, sent without waiting."""


@pytest.fixture(scope="module", params=[0, 2], ids=["alone", "workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("exposures"), workers=request.param, users=len(WAYS))
    with server:
        yield server
    no_bug(server.log)


def listed(server: Server) -> list[dict[str, Any]]:
    told = server.run_cli("exposures", "list", "--json", "--config", str(server.config))
    rows: list[dict[str, Any]] = json.loads(told.stdout)
    assert all(row.keys() == documented()["mailserver exposures list"] for row in rows)
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


def sent_blindly(server: Server, family: str, lines: str, user: str, password: str) -> list[bytes]:
    """The answers to all of it."""
    plain, name, secret = (
        base64.b64encode(text.encode()).decode() for text in (f"\0{user}\0{password}", user, password)
    )
    data = lines.format(user=user, password=password, plain=plain, name=name, secret=secret) + "\r\n"
    with Client(server, family) as client:
        client.greeting()
        client.send(data.encode())
        # IMAP gives the word before the text back as a tag.
        return [client.line().removeprefix(line.encode()) for line in data.splitlines()]


def test_every_way_to_send_a_password_is_noticed_and_answered_alike(server: Server) -> None:
    before = len(server.log)
    users = sorted(user for user in server.accounts if user.startswith("u0"))
    assert len(users) == len(WAYS)
    answers: list[list[bytes]] = []
    for (family, _method, lines), user in zip(WAYS, users, strict=True):
        right = sent_blindly(server, family, lines, user, server.accounts[user])
        assert right[0].startswith(REFUSAL[family])
        assert b"not encrypted" in right[0]
        answers.append(right)
    time.sleep(1)  # so that the other worker knows that all of these pairs have had their turn
    for (family, _method, lines), user, right in zip(WAYS, users, answers, strict=True):
        assert sent_blindly(server, family, lines, user, "wrong") == right
        assert sent_blindly(server, family, lines, "nobody@example.test", server.accounts[user]) == right
    since = len(server.log)
    for (family, _method, lines), user in zip(WAYS, users, strict=True):
        sent_blindly(server, family, lines, user, server.accounts[user])
    server.wait_for(rf"cleartext-login .*user={users[-1]}", since=since, seconds=20)
    eventually(lambda: server.log.count("password-exposed", before) >= len(WAYS), 10 * len(WAYS))
    time.sleep(3)
    assert {row["user"]: (row["protocol"], row["method"], row["count"]) for row in listed(server)} == {
        user: (family, method, 1) for (family, method, _lines), user in zip(WAYS, users, strict=True)
    }, "each once, however often it came within the minute"
    with urlopen(f"http://127.0.0.1:{server.port('metrics')}/metrics", timeout=20) as page:
        told = page.read().decode()
    assert f"mailserver_exposed_users {len(WAYS)}.0" in told
    total = [line.split() for line in told.splitlines() if line.startswith("mailserver_passwords_exposed_total{")]
    assert sum(float(number) for _name, number in total) == len(WAYS)
    assert not any(server.accounts[user] in server.log for user in users)
