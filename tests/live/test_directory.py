"""A server whose accounts are in a directory: logins, mail, and changes by the command beside it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.directory import changing, reading
from mailserver.directory.changing import Author
from mailserver.directory.model import AccountLimits, NewAccount, Password
from mailserver.directory.sqlite import SQLiteDatabase
from tests.live.client import Client, deliver, eventually
from tests.live.conftest import no_bug
from tests.server import Server


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("directory")
    made = Server(
        place,
        workers=request.param,
        edit={f"file:{place}/users": f"directory:{place}/accounts/directory.db"},
    )
    command(made, "directory", "create")
    command(made, "directory", "import", str(place / "users"))
    with made as server:
        yield server
    no_bug(server.log)


def command(server: Server, group: str, name: str, *words: str, password: str = "geheim") -> str:
    done = CliRunner().invoke(main, [group, name, *words, "--config", str(server.config)], input=f"{password}\n")
    assert done.exit_code == 0, done.output
    return done.output


def processes(server: Server) -> int:
    """The number of those that serve."""
    return 2 if "workers = 2" in server.config.read_text() else 1


def database(server: Server) -> SQLiteDatabase:
    return SQLiteDatabase.open(server.dir / "accounts" / "directory.db", waits=5000)


def add(server: Server, name: str) -> None:
    """With a password that costs nothing to check."""
    changing.add_account(database(server), Author("tests", 1), NewAccount(name, Password("{PLAIN}geheim")))


def logged_in(server: Server, name: str, protocol: str = "imaps", password: str = "geheim") -> Client:
    client = Client(server, protocol)
    client.greeting()
    return client.log_in(name, password)


def refusal(server: Server, name: str, password: str = "geheim") -> bytes:
    with Client(server, "imaps") as client:
        client.greeting()
        return client.try_login(name, password)


def test_imported_users_log_in_by_all_protocols(server: Server) -> None:
    for domain in ("example.test", "example.org"):
        name, password = server.user_of(domain)
        for protocol in ("imaps", "pop3s", "submissions"):
            with logged_in(server, name, protocol, password):
                pass


def test_a_new_user_logs_in_and_gets_mail_at_once(server: Server) -> None:
    command(server, "user", "add", "new@example.test")
    with logged_in(server, "new@example.test"):
        pass
    with Client(server, "lmtp") as client:
        client.greeting()
        client.send(b"LHLO client.example\r\n")
        client.until(rb"250 ")
        client.ask(b"MAIL FROM:<>\r\n")
        assert client.ask(b"RCPT TO:<new@example.test>\r\n").startswith(b"250")
        assert client.ask(b"RCPT TO:<absent@example.test>\r\n").startswith(b"550 5.1.1")


def stored(server: Server, name: str) -> Password:
    account = reading.find_account(database(server), name)
    assert account is not None
    return account.password


def test_a_weaker_hash_is_made_anew_and_no_session_ends(server: Server) -> None:
    add(server, "ten@example.test")
    with logged_in(server, "ten@example.test") as session:
        eventually(lambda: stored(server, "ten@example.test").secret.startswith("{ARGON2ID}"), seconds=30)
        assert set(stored(server, "ten@example.test").scram) == {"SHA-256"}
        with logged_in(server, "ten@example.test"):
            pass
        assert b"AUTHENTICATIONFAILED" in refusal(server, "ten@example.test", "anders")
        # Two looks at the changes later.
        time.sleep(2)
        session.send(b"z NOOP\r\n")
        assert session.until(rb"z ")[-1].startswith(b"z OK")


def test_an_app_password_without_tls_is_revoked_and_its_owner_gets_a_message(server: Server) -> None:
    name = "eleven@example.test"
    add(server, name)
    said = command(server, "user", "app-password", "add", name, "--label", "phone")
    phone = said.partition("password: ")[2].split()[0]
    with logged_in(server, name, password=phone) as ends, logged_in(server, name) as stays:
        with Client(server, "imap") as client:
            client.greeting()
            answer = client.ask(f'a LOGIN "{name}" "{phone}"\r\n'.encode())
            assert answer.startswith(b"a NO [PRIVACYREQUIRED]")
        ends.until(rb"\* BYE this account was changed")
        server.wait_for(rf"the app password phone of {name} came in clear text and was revoked")
        assert b"AUTHENTICATIONFAILED" in refusal(server, name, phone)
        stays.send(b"z NOOP\r\n")
        assert stays.until(rb"z ")[-1].startswith(b"z OK")
    eventually(lambda: has(server, name, b"app password"))
    assert "phone" not in command(server, "user", "app-password", "list", name)
    assert json.loads(command(server, "exposures", "list", "--json")) == []


def test_only_the_sessions_of_a_changed_user_end(server: Server) -> None:
    add(server, "one@example.test")
    add(server, "two@example.test")
    with logged_in(server, "two@example.test") as bystander:
        sessions = [logged_in(server, "one@example.test", protocol) for protocol in ("imaps", "imaps", "submissions")]
        # The change alone, without the command that asks the server, as another machine would make it.
        changing.set_password(database(server), Author("tests", 2), "one@example.test", Password("{PLAIN}anders"))
        for session in sessions:
            session.until(rb"\* BYE this account was changed|421 4.3.2 this account was changed")
        assert b"AUTHENTICATIONFAILED" in refusal(server, "one@example.test")
        with logged_in(server, "one@example.test", password="anders"):
            pass
        bystander.send(b"z NOOP\r\n")
        assert bystander.until(rb"z ")[-1].startswith(b"z OK")


def test_a_revoked_app_password_ends_its_sessions_alone(server: Server) -> None:
    add(server, "app@example.test")
    said = command(server, "user", "app-password", "add", "app@example.test", "--label", "phone")
    phone = said.partition("password: ")[2].split()[0]
    said = command(server, "user", "app-password", "add", "app@example.test", "--label", "other", "--protocol", "imap")
    other = said.partition("password: ")[2].split()[0]
    with (
        logged_in(server, "app@example.test", password=phone.upper()) as ends,
        logged_in(server, "app@example.test", "pop3s", password=phone) as ends_too,
        logged_in(server, "app@example.test", password=other) as stays,
        logged_in(server, "app@example.test") as main,
    ):
        assert b"AUTHENTICATIONFAILED" in refusal(server, "app@example.test", phone + "x")
        with Client(server, "pop3s") as client:
            client.greeting()
            assert client.try_login("app@example.test", other).startswith(b"-ERR [AUTH]")
        command(server, "user", "app-password", "revoke", "app@example.test", "phone")
        ends.until(rb"\* BYE this account was changed")
        ends_too.until(rb"-ERR \[SYS/TEMP\] this account was changed")
        assert b"AUTHENTICATIONFAILED" in refusal(server, "app@example.test", phone)
        # Another main password ends neither.
        changing.set_password(database(server), Author("tests", 2), "app@example.test", Password("{PLAIN}anders"))
        main.until(rb"\* BYE this account was changed")
        stays.send(b"z NOOP\r\n")
        assert stays.until(rb"z ")[-1].startswith(b"z OK")
        changing.set_limits(
            database(server), Author("tests", 3), "app@example.test", AccountLimits(protocols=("pop3",))
        )
        stays.until(rb"\* BYE this account was changed")
    for _ in range(100):
        said = command(server, "user", "app-password", "list", "app@example.test", "--json")
        [row] = json.loads(said)
        if row["last_used"] and row["protocol"] == "imaps" and row["network"]:
            break
        # Logins are gathered for some seconds.
        time.sleep(0.2)
    assert row["protocol"] == "imaps"
    assert abs(row["last_used"] - time.time()) < 600
    assert row["network"] == "127.0.0.0/24"
    assert " 127.0.0.0/24 " in command(server, "user", "app-password", "list", "app@example.test")


def test_a_disabled_user_is_logged_out_and_an_enabled_one_logs_in(server: Server) -> None:
    add(server, "three@example.test")
    with logged_in(server, "three@example.test") as session:
        output = command(server, "user", "disable", "three@example.test")
        # The server's own look at changes, once a second, may come before the command's request.
        bye = session.until(rb"\* BYE this account (is disabled|was changed)")[-1]
        assert "ended the session" in output or b"was changed" in bye
    assert b"AUTHENTICATIONFAILED" in refusal(server, "three@example.test")
    command(server, "user", "enable", "three@example.test")
    with logged_in(server, "three@example.test"):
        pass


def has(server: Server, name: str, subject: bytes) -> bool:
    with logged_in(server, name) as session:
        session.send(b's SELECT INBOX\r\nt UID SEARCH SUBJECT "' + subject + b'"\r\n')
        lines = session.until(rb"t OK")
        return any(line.startswith(b"* SEARCH ") for line in lines)


def test_an_alias_gets_mail_and_gives_the_right_to_send_at_once(server: Server) -> None:
    for name in ("seven@example.test", "eight@example.test"):
        add(server, name)
    with logged_in(server, "seven@example.test", "submissions") as sender:
        assert sender.ask(b"MAIL FROM:<info@example.test>\r\n").startswith(b"550 5.7.1")
        assert deliver(server, "info@example.test").startswith(b"550 5.1.1")
        command(server, "alias", "add", "info@example.test", "seven@example.test", "eight@example.test")
        command(server, "group", "add", "all@example.test", "info@example.test")
        assert sender.ask(b"MAIL FROM:<info@example.test>\r\n").startswith(b"250")
        assert deliver(server, "info@example.test").startswith(b"250")
        assert deliver(server, "all+x@example.test").startswith(b"250")
        for name in ("seven@example.test", "eight@example.test"):
            assert has(server, name, b"to info@")
            assert has(server, name, b"to all+x@")
        sender.ask(b"RSET\r\n")
        command(server, "alias", "disable", "info@example.test")
        assert sender.ask(b"MAIL FROM:<info@example.test>\r\n").startswith(b"550 5.7.1")
        assert deliver(server, "all@example.test").startswith(b"550 5.1.1")


def test_domains_of_the_directory_are_local_at_once(server: Server) -> None:
    add(server, "nine@example.test")
    assert deliver(server, "nine@example.com").startswith(b"550 5.1.1")
    command(server, "domain", "alias", "example.com", "example.test")
    assert deliver(server, "nine@example.com").startswith(b"250")
    command(server, "domain", "catch-all", "example.test", "nine@example.test")
    assert deliver(server, "anything@example.com").startswith(b"250")
    command(server, "domain", "catch-all", "example.test", "--remove")
    assert deliver(server, "anything@example.com").startswith(b"550 5.1.1")
    command(server, "domain", "alias", "example.com", "--remove")
    command(server, "domain", "remove", "example.com")
    assert deliver(server, "nine@example.com").startswith(b"550 5.1.1")


def test_a_restored_copy_is_used_and_all_sessions_end(server: Server, tmp_path: Path) -> None:
    add(server, "four@example.test")
    copy = tmp_path / "copy.db"
    command(server, "directory", "backup", str(copy))
    add(server, "five@example.test")
    with logged_in(server, "five@example.test") as five, logged_in(server, "four@example.test") as four:
        command(server, "directory", "restore", str(copy), "--yes")
        five.until(rb"\* BYE this account was changed")
        four.until(rb"\* BYE this account was changed")
    assert b"AUTHENTICATIONFAILED" in refusal(server, "five@example.test")
    with logged_in(server, "four@example.test"):
        pass


def test_logins_are_unavailable_while_the_directory_is_away_and_open_sessions_go_on(server: Server) -> None:
    add(server, "six@example.test")
    path = server.dir / "accounts" / "directory.db"
    aside = path.with_name("aside.db")
    with logged_in(server, "six@example.test") as session:
        before = len(server.log)
        os.rename(path, aside)
        try:
            # Each process looks once a second.
            while server.log[before:].count("nobody can log in until it can be read") < processes(server):
                assert b"a " in refusal(server, "nobody@example.test")
            for name in ("six@example.test", "nobody@example.test"):
                assert b"[UNAVAILABLE]" in refusal(server, name)
            session.send(b"z NOOP\r\n")
            assert session.until(rb"z ")[-1].startswith(b"z OK")
        finally:
            os.rename(aside, path)
        # Opened again within a second.
        for _ in range(50):
            if b"a OK" in refusal(server, "six@example.test"):
                break
        else:
            pytest.fail("the directory is not opened again")
