"""Delegates of a directory, at each protocol of a running server, and the end of their sessions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.directory import changing
from mailserver.directory.changing import Author
from mailserver.directory.model import NewAccount, Password
from mailserver.directory.sqlite import SQLiteDatabase
from tests.live.client import Client, eventually
from tests.live.conftest import no_bug
from tests.server import Server

ADMIN, ANNA = "admin@example.org", "anna@example.test"


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("delegates")
    made = Server(
        place,
        workers=request.param,
        edit={
            f'backends = ["file:{place}/users"]': f'backends = ["directory:{place}/accounts/directory.db"]\n'
            'master_separator = "*"'
        },
    )
    command(made, "directory", "create")
    database = SQLiteDatabase.open(place / "accounts" / "directory.db", waits=5000)
    for name in (ADMIN, ANNA, "ben@example.test"):
        changing.add_account(database, Author("tests", 1), NewAccount(name, Password(f"{{PLAIN}}of-{name}")))
    database.close()
    with made as server:
        yield server
    no_bug(server.log)


def command(server: Server, *words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--config", str(server.config)])
    assert done.exit_code == 0, done.output
    return done.output


def client(server: Server, protocol: str) -> Client:
    made = Client(server, protocol)
    made.greeting()
    return made


def plain(authorization: str, name: str, password: str) -> bytes:
    return base64.b64encode(f"{authorization}\0{name}\0{password}".encode())


def sessions(server: Server) -> list[tuple[str | None, str | None]]:
    rows = json.loads(command(server, "who", "--json"))
    return sorted((row["user"] or "", row["delegate"] or "") for row in rows)


def test_delegates_log_in_everywhere_and_removal_ends_their_sessions_alone(server: Server) -> None:
    with client(server, "imaps") as refused:
        assert b"AUTHORIZATIONFAILED" in refused.try_login(f"{ANNA}*{ADMIN}", f"of-{ADMIN}")
    said = command(server, "delegate", "add", ADMIN, "example.test", "--expires", "8h", "--why", "a question")
    assert f"{ADMIN} may log in as USER@example.test" in said
    by_name = [
        client(server, protocol).log_in(f"{ANNA}*{ADMIN}", f"of-{ADMIN}")
        for protocol in ("imaps", "pop3s", "submissions")
    ]
    imap = client(server, "imaps")
    imap.send(b"a AUTHENTICATE PLAIN " + plain(ANNA, ADMIN, f"of-{ADMIN}") + b"\r\n")
    assert imap.until(rb"a ")[-1].startswith(b"a OK")
    submission = client(server, "submissions")
    submission.hello()
    assert submission.ask(b"AUTH PLAIN " + plain(ANNA, ADMIN, f"of-{ADMIN}") + b"\r\n").startswith(b"235")
    with (
        client(server, "imaps").log_in(ANNA, f"of-{ANNA}") as user,
        client(server, "imaps").log_in(ADMIN, f"of-{ADMIN}") as own,
    ):
        assert sessions(server) == [(ADMIN, ""), (ANNA, ""), *[(ANNA, ADMIN)] * 5]
        assert f"{ANNA} by {ADMIN}" in command(server, "who", "--user", ADMIN)
        assert submission.ask(f"MAIL FROM:<{ANNA}>\r\n".encode()).startswith(b"250")
        assert submission.ask(b"RSET\r\n").startswith(b"250")
        assert not submission.ask(f"MAIL FROM:<{ADMIN}>\r\n".encode()).startswith(b"250"), "it sends as the user"
        command(server, "delegate", "remove", ADMIN, "example.test")
        for session in (*by_name, imap, submission):
            with session:
                assert b"this account was changed" in session.rest()
        for bystander in (user, own):
            bystander.send(b"z NOOP\r\n")
            assert bystander.until(rb"z ")[-1].startswith(b"z OK")
    with client(server, "imaps") as refused:
        assert b"AUTHORIZATIONFAILED" in refused.try_login(f"{ANNA}*{ADMIN}", f"of-{ADMIN}")
    named = [line for line in server.log.splitlines() if f"delegate={ADMIN}" in line]
    assert all(f"user={ANNA}" in line for line in named)
    assert {event: sum(f"{event} " in line for line in named) for event in ("login", "kicked")} == {
        "login": 5,
        "kicked": 5,
    }


def test_the_ledger_names_both(server: Server) -> None:
    command(server, "delegate", "add", ADMIN, "ben@example.test", "--expires", "1h", "--why", "a test")
    with client(server, "imaps").log_in(f"ben@example.test*{ADMIN}", f"of-{ADMIN}"):
        pass
    eventually(lambda: f"LOGIN by {ADMIN}" in command(server, "clients", "ben@example.test"))


def test_a_changed_delegate_loses_its_sessions_as_others(server: Server) -> None:
    command(server, "delegate", "add", ADMIN, "ben@example.test", "--expires", "never", "--why", "his secretary")
    with client(server, "imaps").log_in(f"ben@example.test*{ADMIN}", f"of-{ADMIN}") as session:
        command(server, "user", "disable", ADMIN)
        assert session.rest()
    command(server, "user", "enable", ADMIN)
