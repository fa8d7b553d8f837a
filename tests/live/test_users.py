"""The users file of a live server: lines that cannot be used, what restricts a user, and commands that change it."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from mailserver.cli.control import ask, server_config
from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.refs import without_refs
from tests.server import Server

ODD = """\
junk
noscheme@example.test:hunter2
broken@example.test:{ARGON2ID}!
md5@example.test:$1$salt$wa8aFuC3rkp5bjoBIGTc41
yescrypt@example.test:$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/$U714.Qb8scG3K4QGg/xKCyJYcAYtgz2YQfZyHILKld1
here@example.test:{PLAIN}secret::::::allow_nets=127.0.0.0/8,::1
away@example.test:{PLAIN}secret::::::allow_nets=192.0.2.0/24 userdb_quota_rule=*:storage=1G
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("users"))
    with open(server.dir / "users", "a") as file:
        file.write(ODD)
    with server:
        yield server
    no_bug(server.log)


def answer(server: Server, protocol: str, user: str, password: str) -> bytes:
    with Client(server, protocol) as client:
        client.greeting()
        return client.try_login(user, password)


def test_a_server_starts_with_lines_that_cannot_be_used_and_tells_of_them(server: Server) -> None:
    told = server.output_path.read_text()
    for words in (
        "users line",
        "user noscheme@example.test",
        "user broken@example.test",
        "user md5@example.test",
        "userdb_quota_rule",
    ):
        assert words in told
    assert answer(server, "imaps", *server.user_of("example.test")).startswith(b"a OK")
    taken_up = ask(server_config(server.config), "reload")
    assert taken_up.ok
    assert any("broken@example.test: warning:" in line for line in taken_up.lines)
    checked = server.run_cli("check", "--config", str(server.config))
    assert "warning: " in checked.stdout + checked.stderr


def test_an_entry_of_the_systems_own_scheme_lets_its_user_in(server: Server) -> None:
    assert answer(server, "imaps", "yescrypt@example.test", "Hello world!").startswith(b"a OK")
    assert answer(server, "pop3s", "yescrypt@example.test", "Hello world").startswith(b"-ERR [AUTH]")


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("broken@example.test", "the stored password of broken@example.test cannot be used"),
        ("md5@example.test", "stored by MD5-CRYPT, and weak_schemes of .auth. is false"),
        ("away@example.test", "away@example.test may not log in from 127.0.0.1: its allow_nets is 192.0.2.0/24"),
        ("nobody@example.test", "there is no user nobody@example.test"),
        ("here@example.test", "wrong password for here@example.test"),
    ],
)
def test_the_client_hears_one_answer_and_the_log_says_why(server: Server, user: str, reason: str) -> None:
    before = len(server.log)
    password = "wrong" if user.startswith("here") else "secret"
    refusal = without_refs(answer(server, "imaps", user, password))
    assert refusal == b"a NO [AUTHENTICATIONFAILED] wrong user name or password\r\n"
    server.wait_for(rf"login-failed session=\S+ .*user={user} method=\S+ reason=.*{reason}", since=before)


def test_allow_nets_lets_in_from_there(server: Server) -> None:
    for protocol, good in (("imaps", b"a OK"), ("pop3s", b"+OK"), ("submissions", b"235")):
        assert answer(server, protocol, "here@example.test", "secret").startswith(good)
    with Client(server, "imaps") as client:
        client.greeting()
        client.send(b"a AUTHENTICATE PLAIN " + base64.b64encode(b"\0away@example.test\0secret") + b"\r\n")
        assert client.until(rb"a ")[-1].startswith(b"a NO [AUTHENTICATIONFAILED]")
