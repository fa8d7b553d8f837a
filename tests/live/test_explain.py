"""`mailserver explain` and `mailserver last` beside a running server with two workers, and after its end."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.refs import refs_in, without_refs
from tests.server import Server

PROTOCOLS = ("imaps", "pop3s", "submissions")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("explain"), workers=2) as server:
        yield server
    no_bug(server.log)


def refusal(server: Server, protocol: str, name: str, password: str) -> bytes:
    """The whole answer to a login by PLAIN."""
    with Client(server, protocol) as client:
        client.greeting()
        if protocol == "submissions":
            client.send(b"EHLO x\r\n")
            client.until(rb"250 ")
        plain = base64.b64encode(f"\0{name}\0{password}".encode())
        begin = {"imaps": b"a AUTHENTICATE PLAIN ", "pop3s": b"AUTH PLAIN ", "submissions": b"AUTH PLAIN "}[protocol]
        client.send(begin + plain + b"\r\n")
        return client.until({"imaps": rb"a ", "pop3s": rb"[-+]", "submissions": rb"\d{3} "}[protocol])[-1]


def cli(server: Server, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return server.run_cli(*arguments, "--config", str(server.config), check=check)


def explained(server: Server, ref: str) -> dict[str, object]:
    found = json.loads(cli(server, "explain", ref, "--json").stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_refusal_is_explained_at_once(server: Server, protocol: str) -> None:
    user, _password = server.user_of("example.test")
    unknown = refusal(server, protocol, f"nobody.{protocol}@example.test", "x")
    wrong = refusal(server, protocol, user, "x")
    assert without_refs(unknown) == without_refs(wrong)
    for answer, rule in ((unknown, "unknown user"), (wrong, "wrong password")):
        (ref,) = refs_in(answer)
        found = explained(server, ref.lower().replace("-", "").replace("0", "o"))
        assert found["rule"] == rule
        assert found["peer"] == "127.0.0.1"
        assert found["tls"] == "TLSv1.3"
        assert found["protocol"] == protocol[:-1]
        assert server.wait_for(rf"login-failed .* ref={ref}")
    assert found["user"] == user


def test_the_story_is_readable(server: Server) -> None:
    (ref,) = refs_in(refusal(server, "imaps", "ana@example.test", "geheim-17"))
    said = cli(server, "explain", ref).stdout
    assert "It sent the name ana@example.test." in said
    assert said.splitlines()[-1].startswith("What to do: ")
    assert "anna@example.test" in said.splitlines()[-1]
    assert "geheim-17" not in said


@pytest.mark.parametrize("typed", ["hunter2-geheim", "p@geheim", "geheim\u20ac" * 20, "geheim" * 1700])
def test_what_may_be_a_password_is_nowhere(server: Server, typed: str) -> None:
    before = len(server.log)
    answers = [refusal(server, "imaps", typed, "x"), refusal(server, "imaps", typed[:200], "y")]
    for answer in answers:
        (ref,) = refs_in(answer)
        server.wait_for(rf"login-failed .* ref={ref}", since=before)
        kept = str(explained(server, ref)["typed"])
        assert kept.endswith("characters)") or (not kept and len(typed) > 10_000)
    rings = b"".join(path.read_bytes() for path in records(server))
    assert b"geheim" not in rings
    assert "geheim" not in server.log[before:]


def records(server: Server) -> list[Path]:
    return sorted((server.config.parent / "run" / "explain").iterdir())


def test_ids_that_are_not_known(server: Server) -> None:
    unknown = cli(server, "explain", "0000-0000", check=False)
    assert unknown.returncode == 1
    assert "7 days" in unknown.stderr
    other = cli(server, "explain", "hello\x1b", check=False)
    assert other.returncode == 1
    assert "is no id" in other.stderr
    assert "\x1b" not in other.stderr


def test_lists(server: Server) -> None:
    user, password = server.user_of("example.org")
    for _ in range(3):
        with Client(server, "imaps") as client:
            client.log_in(user, password)
    (ref,) = refs_in(refusal(server, "pop3s", user, "x"))
    lines = cli(server, "explain", "--user", user, "--peer", "127.0.0.1").stdout.splitlines()
    assert [line.split()[0] for line in lines[:1]] == ["TIME"]
    assert ref in lines[-1]
    assert cli(server, "explain", "--peer", "192.0.2.1", "--json").stdout.strip() == "[]"
    found = json.loads(cli(server, "last", user, "--json").stdout)
    logins = [each for each in found if each["result"] == "logged in"]
    assert 1 <= len(logins) <= 2, "once in a while by each worker"
    assert found[-1]["ref"] == ref
    assert logins[0]["program"] is None or isinstance(logins[0]["program"], str)
    assert "LOGIN" in cli(server, "last", user).stdout


def test_it_works_without_the_server_which_was_killed(tmp_path: Path) -> None:
    with Server(tmp_path, workers=1) as server:
        (ref,) = refs_in(refusal(server, "imaps", "nobody@example.test", "x"))
        assert server.stop(signal.SIGKILL) != 0
        assert explained(server, ref)["rule"] == "unknown user"
        server.start()
        (second,) = refs_in(refusal(server, "imaps", "nobody@example.test", "x"))
        assert {explained(server, each)["ref"] for each in (ref, second)} == {ref, second}


def test_a_directory_that_cannot_be_written_costs_a_line_and_no_login(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=0)
    (server.config.parent / "run").mkdir(mode=0o700, exist_ok=True)
    os.symlink("/nowhere", server.config.parent / "run" / "explain")
    with server:
        (ref,) = refs_in(refusal(server, "imaps", "nobody@example.test", "x"))
        refusal(server, "imaps", "nobody@example.test", "x")
        user, password = server.user_of("example.test")
        with Client(server, "imaps") as client:
            client.log_in(user, password)
        assert server.log.count("not recorded for `mailserver explain`") == 1
        assert f"ref={ref}" in server.log


def test_ids_that_clients_do_not_see(tmp_path: Path) -> None:
    with Server(tmp_path, workers=1, append="\n[explain]\nrefusals = false\n") as server:
        answer = refusal(server, "imaps", "nobody@example.test", "x")
        assert answer == without_refs(answer)
        ref = server.wait_for(r"login-failed .* ref=([0-9A-Z-]{9})")[1]
        assert explained(server, ref)["rule"] == "unknown user"
        server.replace("refusals = false", "refusals = true")
        server.hang_up()
        assert refs_in(refusal(server, "imaps", "nobody@example.test", "x"))
