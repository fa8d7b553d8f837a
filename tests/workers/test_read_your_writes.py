"""A command that begins after another session's change was answered shows that change, in whichever worker either is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.dovecot import away, need
from tests.live.client import Client, logged_in
from tests.live.conftest import no_bug
from tests.oracle.test_transcripts_on_dovecot import SocketConnection
from tests.server import Server
from tests.workers.processes import held_in_each

TRIES = 200
MESSAGE = b"From: anna@example.test\r\n\r\ntext\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("writes"), workers=2) as server:
        yield server
        no_bug(server.log)


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[Client, Client]]:
    """Sessions of two workers with INBOX selected, which has three messages."""
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(client) for client in held_in_each(server, 2).values())
        answer(first, b"STORE 1:* +FLAGS.SILENT (\\Deleted)", may_fail=True)
        answer(first, b"EXPUNGE")
        for _ in range(3):
            append(first)
        for client in (first, second):
            answer(client, b"SELECT INBOX")
        yield first, second


def answer(client: Client, command: bytes, *, may_fail: bool = False) -> bytes:
    client.send(b"x %b\r\n" % command)
    lines = client.until(rb"x ")
    assert may_fail or lines[-1].startswith(b"x OK"), lines
    return b"".join(lines)


def append(client: Client) -> None:
    client.send(b"x APPEND INBOX {%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE))
    assert client.until(rb"x ")[-1].startswith(b"x OK")


@pytest.mark.parametrize("command", [b"NOOP", b"CHECK", b"FETCH 1 UID", b"SEARCH ALL", b"STATUS INBOX (MESSAGES)"])
def test_flags_that_another_worker_has_stored_are_shown_by_the_next_command(
    pair: tuple[Client, Client], command: bytes
) -> None:
    missed = 0
    for number in range(TRIES if command == b"NOOP" else TRIES // 5):
        writer, reader = pair if number % 3 else (pair[1], pair[0])
        answer(writer, b"STORE 2 FLAGS (\\Seen t%d)" % (number % 20))
        missed += b"* 2 FETCH (FLAGS (\\Seen t%d" % (number % 20) not in answer(reader, command).replace(
            b" \\Recent", b""
        )
    assert not missed


def test_messages_that_another_worker_has_appended_copied_or_expunged_are_shown_by_the_next_noop(
    pair: tuple[Client, Client],
) -> None:
    writer, reader = pair
    missed = []
    for number in range(TRIES // 8):
        append(writer)
        if b"* 4 EXISTS" not in answer(reader, b"NOOP"):
            missed.append(f"append {number}")
        answer(writer, b"COPY 1 INBOX")
        if b"* 5 EXISTS" not in answer(reader, b"NOOP"):
            missed.append(f"copy {number}")
        answer(writer, b"STORE 4:5 +FLAGS (\\Deleted)")
        answer(reader, b"NOOP")
        answer(writer, b"EXPUNGE")
        if b"* 4 EXPUNGE" not in answer(reader, b"NOOP"):
            missed.append(f"expunge {number}")
    assert not missed


def test_what_pop3_deletes_in_another_worker_is_shown_by_the_next_noop(
    server: Server, pair: tuple[Client, Client]
) -> None:
    missed = 0
    for _ in range(6):
        append(pair[0])
        for client in pair:
            answer(client, b"NOOP")
        with logged_in(server, "pop3s") as pop3:
            assert pop3.ask(b"DELE 4\r\n").startswith(b"+OK")
            assert pop3.ask(b"QUIT\r\n").startswith(b"+OK")
        missed += sum(b"* 4 EXPUNGE" not in answer(client, b"NOOP") for client in pair)
    assert not missed


def test_dovecot_shows_what_another_of_its_processes_has_stored() -> None:
    need()
    with away({"anna@example.test": "secret"}) as dovecot, dovecot, contextlib.ExitStack() as stack:
        writer, reader = (SocketConnection(dovecot.ports["imap"]) for _ in range(2))
        for client in (writer, reader):
            stack.callback(client.hang_up)
            assert client.receive(patient=True).startswith(b"* OK")
            client.ask(b"LOGIN anna@example.test secret")
        writer.ask(b"APPEND INBOX {%d+}\r\n%b" % (len(MESSAGE), MESSAGE))
        for client in (writer, reader):
            client.ask(b"SELECT INBOX")
        missed = 0
        for number in range(TRIES):
            writer.ask(b"STORE 1 FLAGS (\\Seen t%d)" % (number % 20))
            missed += b" t%d" % (number % 20) not in reader.ask(b"NOOP")
        assert not missed
