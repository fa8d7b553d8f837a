"""A session with NOTIFY (RFC 5465) learns by itself what other workers and other programs change in mailboxes that it has not opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.client import Client
from tests.live.conftest import no_bug
from tests.server import Server
from tests.workers.processes import held_in_each

MESSAGE = b"From: anna@example.test\r\n\r\ntext\r\n"
ALL = b"(MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("notify"), workers=2) as server:
        yield server
        no_bug(server.log)


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[Client, Client]]:
    """Sessions of two workers; the first one follows the account, the second one changes it."""
    with contextlib.ExitStack() as stack:
        follower, other = (stack.enter_context(client) for client in held_in_each(server, 2).values())
        ask(follower, b"NOTIFY SET (personal %b)" % ALL)
        yield follower, other


def ask(client: Client, command: bytes) -> None:
    client.send(b"x %b\r\n" % command)
    assert client.until(rb"x ")[-1].startswith(b"x OK")


def maildir(server: Server) -> Path:
    return Path(server.maildir(server.user_of("example.test")[0]))


def test_changes_of_another_worker_are_sent(pair: tuple[Client, Client]) -> None:
    follower, other = pair
    ask(other, b"CREATE far")
    follower.until(rb'\* LIST \(\\HasNoChildren\) "/" "far"')
    ask(other, b"APPEND far {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
    follower.until(rb'\* STATUS "far" \(MESSAGES 1 UIDNEXT 2 .* UNSEEN 1 ')
    ask(other, b"SELECT far")
    ask(other, b"STORE 1 +FLAGS (\\Seen \\Deleted)")
    follower.until(rb'\* STATUS "far" \(MESSAGES 1 UIDNEXT 2 .* UNSEEN 0 ')
    ask(other, b"CLOSE")
    follower.until(rb'\* STATUS "far" \(MESSAGES 0 UIDNEXT 2 ')
    ask(other, b"SUBSCRIBE far")
    follower.until(rb'\* LIST \(\\Subscribed \\HasNoChildren\) "/" "far"')
    ask(other, b"RENAME far near")
    follower.until(rb'\* LIST \(\\HasNoChildren\) "/" "near" \("OLDNAME" \("far"\)\)')
    ask(other, b"DELETE near")
    follower.until(rb"\* LIST \(\\NonExistent")


def test_a_delivery_by_another_program_is_sent(server: Server, pair: tuple[Client, Client]) -> None:
    follower, other = pair
    ask(other, b"CREATE lists")
    ask(other, b"APPEND lists {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
    follower.until(rb'\* STATUS "lists" \(MESSAGES 1 ')
    folder = maildir(server) / ".lists"
    (folder / "tmp" / "1700000000.M1P1.elsewhere").write_bytes(MESSAGE)
    os.rename(folder / "tmp" / "1700000000.M1P1.elsewhere", folder / "new" / "1700000000.M1P1.elsewhere")
    follower.until(rb'\* STATUS "lists" \(MESSAGES 2 UIDNEXT 3 ')
    os.unlink(folder / "new" / "1700000000.M1P1.elsewhere")
    follower.until(rb'\* STATUS "lists" \(MESSAGES 1 UIDNEXT 3 ')


def test_a_mailbox_that_another_program_makes_is_sent_and_watched(server: Server, pair: tuple[Client, Client]) -> None:
    follower, _other = pair
    folder = maildir(server) / ".foreign"
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(parents=True)
    follower.until(rb'\* LIST \(\\HasNoChildren\) "/" "foreign"')
    (folder / "new" / "1700000000.M2P1.elsewhere").write_bytes(MESSAGE)
    follower.until(rb'\* STATUS "foreign" \(MESSAGES 1 UIDNEXT 2 ')
    os.rename(folder, maildir(server) / ".elsewhere")
    follower.until(rb'\* LIST \(\\HasNoChildren\) "/" "elsewhere" \("OLDNAME" \("foreign"\)\)')
