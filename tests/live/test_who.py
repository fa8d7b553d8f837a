"""The administrator looks at the sessions of a running server, ends some, and asks how it is."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from mailserver.net.admin.control_socket import ControlProtocol
from tests.cli.test_administration import documented, fills, old_names
from tests.live.client import Client, eventually, logged_in
from tests.server import Server


def who(server: Server, *options: str) -> list[dict[str, Any]]:
    done = server.run_cli("who", "--json", "--config", str(server.config), *options)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_who_lists_sessions_with_what_they_do(shared: Server) -> None:
    anna, _ = shared.user_of("example.test")
    eventually(lambda: not who(shared))
    with (
        logged_in(shared, "imaps") as imap,
        logged_in(shared, "pop3s"),
        Client(shared, "submission") as submission,
        logged_in(shared, "imaps", domain="example.org"),
    ):
        submission.greeting()
        imap.send(b"a SELECT INBOX\r\n")
        imap.until(rb"a OK")
        rows = who(shared)
        assert {name for row in rows for name in row} == documented()["mailserver who"]
        # Those of one second stand in the order of the workers.
        assert sorted(row["protocol"] for row in rows) == ["imaps", "imaps", "pop3s", "submission"]
        first, fourth, second, third = sorted(rows, key=lambda row: (row["protocol"], row["user"] != anna))
        assert (first["user"], first["mailbox"], first["peer"], first["name"]) == (
            anna,
            "INBOX",
            "127.0.0.1",
            "mail.example.test",
        )
        assert first["port"] == imap.socket.getsockname()[1]
        assert first["tls"].startswith("TLSv1")
        assert first["sent"] > 100 > 20 < first["received"]
        assert second["mailbox"] == "INBOX"
        assert (third["user"], third["tls"], third["mailbox"]) == (None, None, None)
        assert {row["session"] for row in who(shared, "--user", anna)} == {first["session"], second["session"]}
        assert {row["session"] for row in who(shared, "--protocol", "imap")} == {first["session"], fourth["session"]}
        assert who(shared, "--protocol", "lmtp") == []
        table = shared.run_cli("who", "--config", str(shared.config)).stdout.splitlines()
        assert table[0].split()[:3] == ["SESSION", "USER", "PROTOCOL"]
        assert len(table) == 5
        assert sum(line.split()[1] == anna for line in table) == 2
    eventually(lambda: not who(shared))


def test_a_session_whose_mailbox_is_deleted_is_listed_all_the_same(shared: Server) -> None:
    with logged_in(shared, "imaps") as has, logged_in(shared, "imaps") as deletes:
        has.send(b"a CREATE gone\r\nb SELECT gone\r\n")
        has.until(rb"b OK")
        assert {row["mailbox"] for row in who(shared)} == {"gone", None}
        deletes.send(b"c DELETE gone\r\n")
        deletes.until(rb"c OK")
        assert len(who(shared)) == 2


@pytest.mark.parametrize(
    ("protocol", "farewell"),
    [("imaps", b"* BYE moving house\r\n"), ("pop3s", b"-ERR [SYS/TEMP] moving house\r\n")],
)
def test_a_user_is_kicked_with_the_protocols_farewell(shared: Server, protocol: str, farewell: bytes) -> None:
    anna, _ = shared.user_of("example.test")
    since = len(shared.log)
    with logged_in(shared, protocol) as first, logged_in(shared, protocol, domain="example.org") as other:
        port = first.socket.getsockname()[1]
        [session] = [row["session"] for row in who(shared, "--user", anna) if row["port"] == port]
        done = shared.run_cli("kick", anna, "--reason", "moving house", "--config", str(shared.config))
        assert first.rest() == farewell
        assert done.stdout.split() == [session, anna, protocol, f"127.0.0.1:{port}"]
        assert other.ask(b"a NOOP\r\n" if protocol == "imaps" else b"NOOP\r\n").split()[0] in {b"a", b"+OK"}
    shared.wait_for(rf"kicked session=\S+ protocol={protocol} .*reason=", since=since)


def test_one_session_of_several_is_kicked_by_its_id_in_idle_and_in_the_middle_of_data(shared: Server) -> None:
    with logged_in(shared, "imaps") as idle, logged_in(shared, "imaps") as stays:
        assert idle.ask(b"i IDLE\r\n").startswith(b"+ ")
        port = idle.socket.getsockname()[1]
        [session] = [row["session"] for row in who(shared) if row["port"] == port]
        shared.run_cli("kick", session, "--config", str(shared.config))
        assert idle.rest() == b"* BYE the administrator has ended this session\r\n"
        assert stays.ask(b"n NOOP\r\n").startswith(b"n OK")
    with logged_in(shared, "submissions") as sender:
        user, _ = shared.user_of("example.test")
        sender.send(f"MAIL FROM:<{user}>\r\nRCPT TO:<{user}>\r\nDATA\r\n".encode())
        sender.until(rb"354 ")
        sender.send(b"From: half of a message\r\n")
        shared.run_cli("kick", user, "--config", str(shared.config))
        assert sender.rest().startswith(b"421 4.3.2 ")


def test_kicking_nobody_and_what_cannot_be_said(shared: Server) -> None:
    nobody = shared.run_cli("kick", "nobody@example.test", "--config", str(shared.config), check=False)
    assert nobody.returncode == 1
    assert "no session" in nobody.stderr
    for reason in ("x\r\n* OK", "[ALERT] x", "grüße", "", "x" * 201):
        refused = shared.run_cli("kick", "a", "--reason", reason, "--config", str(shared.config), check=False)
        assert refused.returncode == 1
        assert "a reason has" in refused.stderr


def test_status_tells_listeners_certificates_and_how_full_it_is(shared: Server) -> None:
    with logged_in(shared, "imaps") as imap:
        imap.send(b"a SELECT INBOX\r\n")
        lines = imap.until(rb"a OK")
        [exists] = [int(line.split()[1]) for line in lines if line.endswith(b" EXISTS\r\n")]
        done = shared.run_cli("status", "--json", "--config", str(shared.config))
        told = json.loads(done.stdout)
        page = documented()
        assert told.keys() | told["listeners"][0].keys() <= page["mailserver status"]
        assert told["workers"][0].keys() <= page["mailserver status"] | fills() | old_names()
        assert told["certificates"][0].keys() <= page["mailserver cert list"]
        assert f"127.0.0.1:{shared.port('imaps')}" in {each["place"] for each in told["listeners"]}
        [listener] = [each for each in told["listeners"] if each["place"] == f"127.0.0.1:{shared.port('imaps')}"]
        assert (listener["protocol"], listener["tls"], listener["connections"]) == ("imaps", "implicit", 1)
        hosts = {each["host"]: each for each in told["certificates"]}
        assert hosts["mail.example.test"]["domain"] == "example.test"
        assert 0 < hosts["mail.example.test"]["days_left"] < 400
        assert sum(each["default"] for each in told["certificates"]) == 1
        workers = told["workers"]
        assert all(worker["answers"] for worker in workers)
        assert sum(worker["sessions"]["logged_in"] for worker in workers) == 1
        assert sum(worker["sessions"]["by_protocol"].get("imaps", 0) for worker in workers) == 1
        assert sum(worker["messages_in_use"] for worker in workers) == exists
        for worker in workers:
            assert 10_000_000 < worker["memory"] < 1_000_000_000
            assert worker["messages_kept"][1] == 2_000_000
            assert 3 < worker["descriptors"] < worker["descriptors_most"]
        table = shared.run_cli("status", "--config", str(shared.config)).stdout
        assert "mail.example.test" in table
        assert " of 2000000" in table


def talk(server: Server, line: bytes) -> bytes:
    """What the control socket says to a line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        # The path may be longer than a socket's address can be.
        connection.connect(str(server.dir / "run/control"))
        connection.sendall(line)
        said = b""
        while not said.endswith(b"\n") and (data := connection.recv(65536)):
            said += data
        return said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense\n", "unknown request"),
        (b"[]\n", "unknown request"),
        (b'{"do": "format"}\n', "unknown request"),
        (b'{"do": ["who"]}\n', "unknown request"),
        (b'{"do": "who", "user": 1}\n', "user must be a text"),
        (b'{"do": "who", "color": "x"}\n', "no such argument: color"),
        (b'{"do": "status", "user": "x"}\n', "no such argument: user"),
        (b'{"do": "kick"}\n', "kick takes a target"),
        pytest.param(
            b'{"do": "' + b"x" * ControlProtocol.MAX_LENGTH + b'"}\n',
            f"a request may have {ControlProtocol.MAX_LENGTH} octets",
            id="too long",
        ),
        (b"[" * 60000 + b"\n", "unknown request"),
    ],
)
def test_requests_that_are_refused(shared: Server, line: bytes, reason: str) -> None:
    answer = json.loads(talk(shared, line))
    assert answer["ok"] is False
    assert reason in answer["lines"][0]
    assert json.loads(talk(shared, b'{"do": "who"}\n'))["ok"] is True
