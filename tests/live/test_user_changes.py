"""`mailserver user` beside a server that runs: whose sessions end, and what becomes of the mail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.cli.control import ask, server_config
from mailserver.store.maildir.account import relocation
from tests.live.client import Client, deliver
from tests.live.conftest import no_bug
from tests.server import Server


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("changes"), workers=request.param) as server:
        yield server
    no_bug(server.log)


def command(server: Server, *words: str, check: bool = True, password: str = "geheim") -> str:
    """`mailserver user`, in this process: it starts in no time."""
    name, *rest = words
    done = CliRunner().invoke(main, ["user", name, "--config", str(server.config), *rest], input=f"{password}\n")
    assert not check or done.exit_code == 0, done.output
    return done.output


def add(server: Server, name: str) -> None:
    """As `mailserver user add` does, with an entry that costs nothing."""
    with open(server.dir / "users", "a") as file:
        file.write(f"{name}:{{PLAIN}}geheim\n")
    assert ask(server_config(server.config), "users").ok


def logged_in(server: Server, name: str, protocol: str = "imaps") -> Client:
    client = Client(server, protocol)
    client.greeting()
    return client.log_in(name, "geheim")


def refused(server: Server, name: str) -> bytes:
    with Client(server, "imaps") as client:
        client.greeting()
        return client.try_login(name, "geheim")


def uids(server: Server, name: str) -> tuple[list[bytes], list[bytes]]:
    """UIDVALIDITY and UIDs of INBOX."""
    with logged_in(server, name) as client:
        client.send(b"b SELECT INBOX\r\n")
        selected = client.until(rb"b OK")
        client.send(b"c UID SEARCH ALL\r\n")
        return [line for line in selected if b"UIDVALIDITY" in line], client.until(rb"c OK")[:-1]


def maildir(server: Server, name: str) -> Path:
    local, _, domain = name.partition("@")
    return server.dir / "mail" / domain / local / "Maildir"


def ends(client: Client, farewell: bytes) -> bool:
    return re.match(farewell, client.until(farewell)[-1]) is not None and client.is_cut()


def test_disable_ends_open_sessions_and_lets_nobody_in_by_the_old_entry(server: Server) -> None:
    add(server, "dora@example.test")
    with logged_in(server, "dora@example.test") as first, logged_in(server, "dora@example.test", "pop3s") as second:
        said = command(server, "disable", "dora@example.test")
        assert said.count("ended the session") == 2
        assert ends(first, rb"\* BYE this account is disabled")
        assert second.is_cut()
    assert refused(server, "dora@example.test").startswith(b"a NO [AUTHENTICATIONFAILED]"), "at once, in all workers"
    command(server, "enable", "dora@example.test")
    with logged_in(server, "dora@example.test") as kept:
        assert "ended" not in command(server, "disable", "dora@example.test", "--keep-sessions")
        assert kept.ask(b"n NOOP\r\n").startswith(b"n OK")
    assert refused(server, "dora@example.test").startswith(b"a NO")


def test_a_new_password_counts_at_once(server: Server) -> None:
    add(server, "emil@example.test")
    command(server, "password", "emil@example.test", password="other")
    assert refused(server, "emil@example.test").startswith(b"a NO")


def test_delete_ends_sessions_and_moves_the_mail_aside(server: Server) -> None:
    add(server, "finn@example.test")
    assert deliver(server, "finn@example.test", "first").startswith(b"250")
    client = logged_in(server, "finn@example.test")
    place = maildir(server, "finn@example.test")
    said = command(server, "delete", "finn@example.test", "--yes")
    assert ends(client, rb"\* BYE this account is deleted")
    client.socket.close()
    assert re.search(r"its mail is in \S+Maildir.deleted-\d{4}-\d\d-\d\d\n", said)
    (aside,) = place.parent.iterdir()
    assert aside.name.startswith("Maildir.deleted-")
    assert any("Hello" in file.read_text() for file in (*aside.glob("new/*"), *aside.glob("cur/*")))
    assert deliver(server, "finn@example.test", "late").startswith(b"550")
    # The name again: an account of its own, in the same place, with nothing of the old one's.
    add(server, "finn@example.test")
    assert deliver(server, "finn@example.test", "second").startswith(b"250")
    assert uids(server, "finn@example.test")[1] == [b"* SEARCH 1\r\n"]


def test_add_says_that_mail_lies_in_the_place(server: Server) -> None:
    add(server, "gerd@example.test")
    assert deliver(server, "gerd@example.test", "old").startswith(b"250")
    command(server, "delete", "gerd@example.test", "--yes", "--keep-mail")
    said = command(server, "add", "gerd@example.test", check=False)
    assert "--adopt-mail" in said
    assert "--fresh" in said
    assert refused(server, "gerd@example.test").startswith(b"a NO")
    command(server, "add", "gerd@example.test", "--adopt-mail")
    assert uids(server, "gerd@example.test")[1] == [b"* SEARCH 1\r\n"]
    command(server, "delete", "gerd@example.test", "--yes", "--keep-mail")
    command(server, "add", "gerd@example.test", "--fresh")
    assert uids(server, "gerd@example.test")[1] == [b"* SEARCH\r\n"]


def test_rename_moves_the_mail_with_its_uids(server: Server) -> None:
    add(server, "hans@example.test")
    for number in range(3):
        assert deliver(server, "hans@example.test", str(number)).startswith(b"250")
    with logged_in(server, "hans@example.test") as client:
        client.ask(b"b CREATE Work\r\n")
    before = uids(server, "hans@example.test")
    client = logged_in(server, "hans@example.test")
    said = command(server, "rename", "hans@example.test", "hanna@example.org")
    assert "renamed hans@example.test to hanna@example.org" in said
    assert ends(client, rb"\* BYE this account is being renamed")
    client.socket.close()
    assert refused(server, "hans@example.test").startswith(b"a NO")
    assert uids(server, "hanna@example.org") == before
    assert deliver(server, "hans@example.test", "late").startswith(b"550")
    assert deliver(server, "hanna@example.org", "new").startswith(b"250")
    assert uids(server, "hanna@example.org")[1] == [b"* SEARCH 1 2 3 4\r\n"]
    assert not maildir(server, "hans@example.test").parent.exists(), "nothing is left at the old place"
    with logged_in(server, "hanna@example.org") as client:
        client.send(b'l LIST "" "Work"\r\n')
        assert len(client.until(rb"l OK")) == 2
    # And back, to a name that the server still knows.
    command(server, "rename", "hanna@example.org", "hans@example.test")
    assert uids(server, "hans@example.test")[0] == before[0]


def test_rename_over_another_ones_mail_is_refused(server: Server) -> None:
    add(server, "ida@example.test")
    add(server, "jan@example.test")
    for name in ("ida@example.test", "jan@example.test"):
        assert deliver(server, name, "x").startswith(b"250")
    assert "already" in command(server, "rename", "ida@example.test", "jan@example.test", check=False)
    command(server, "delete", "jan@example.test", "--yes", "--keep-mail")
    with logged_in(server, "ida@example.test") as client:
        assert "exists already" in command(server, "rename", "ida@example.test", "jan@example.test", check=False)
        client.send(b"n NOOP\r\n")
        assert client.until(rb"n OK"), "what is refused ends no session"
    assert uids(server, "ida@example.test")[1] == [b"* SEARCH 1\r\n"]
    add(server, "fresh@example.test")
    assert "exists already" in command(server, "rename", "fresh@example.test", "jan@example.test", check=False)
    assert deliver(server, "jan@example.test", "x").startswith(b"550"), "the one without mail has kept its name"


def test_while_mail_is_moved_a_delivery_is_tried_again(server: Server) -> None:
    add(server, "karl@example.test")
    assert deliver(server, "karl@example.test", "x").startswith(b"250")
    source, target = maildir(server, "karl@example.test"), maildir(server, "klara@example.test")
    relocation.exchange(str(source), str(target))
    assert deliver(server, "karl@example.test", "y").startswith(b"451"), "and not into a new account at the old place"
    # As a command does that was broken off here, and is given again.
    command(server, "rename", "karl@example.test", "klara@example.test")
    assert uids(server, "klara@example.test")[1] == [b"* SEARCH 1\r\n"]
