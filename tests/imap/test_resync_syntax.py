"""CONDSTORE, QRESYNC and ESEARCH: every command cut at each octet and changed at random is answered, and the next one too."""

from __future__ import annotations

import random

import pytest

from mailserver.imap.wire.sequence_set import MAX_RANGES
from tests.fakes import Client
from tests.imap.sessions import connect, put, selected, services

COMMANDS = (
    b"SELECT INBOX (CONDSTORE QRESYNC (%d 3 1:2,4 (1:2,3 1:2,4)))",
    b"EXAMINE INBOX (QRESYNC (%d 1 (1 1)))",
    b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 2 VANISHED)",
    b"FETCH 1:2 (UID MODSEQ) (CHANGEDSINCE 2)",
    b"STORE 1:2 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Seen)",
    b"UID STORE 1:2 (UNCHANGEDSINCE 5) FLAGS ()",
    b'SEARCH RETURN (MIN COUNT) MODSEQ "/flags/\\\\draft" all 3 NOT MODSEQ 1',
    b"STATUS INBOX (HIGHESTMODSEQ UIDNEXT)",
    b"ENABLE QRESYNC CONDSTORE",
    b'ESEARCH IN (selected personal subtree (a "d e") subtree-one a) RETURN (MIN PARTIAL 1:2) CHARSET UTF-8 UID 1:2',
    b"ESEARCH IN (mailboxes INBOX subscribed inboxes) OR SEEN (NEW NOT UID $)",
)
NOISE = (
    b"(",
    b")",
    b" ",
    b"*",
    b":",
    b",",
    b"0",
    b"99999999999999999999",
    b'"',
    b"\\",
    b"%",
    b"VANISHED",
    b"\xff",
    b"{1+}\r\n",
)


def opened() -> Client:
    service = services()
    client = selected(service, messages=4)
    assert b"* ENABLED QRESYNC" in client.ask(b"e ENABLE QRESYNC\r\n")
    client.ask(b"e STORE 3 +FLAGS.SILENT (\\Deleted)\r\nf EXPUNGE\r\n")
    return client


def validity(client: Client) -> int:
    return client.session.mailbox.live.columns.uid_validity


def is_in_step(client: Client) -> bool:
    """An unknown command is no error after a right one; a mailbox is open as before."""
    client.ask(b"\r\n") if client.take() == b"" else None
    if client.session.selected is None:
        client.ask(b"s SELECT INBOX\r\n")
    return client.ask(b"z NOOP\r\n").endswith(b"z OK NOOP completed\r\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_cut_at_each_octet(command: bytes) -> None:
    client = opened()
    line = command % validity(client) if b"%d" in command else command
    for end in range(len(line) + 1):
        answer = client.ask(b"t " + line[:end] + b"\r\n")
        assert b"t OK" in answer or b"t BAD" in answer or b"t NO" in answer, line[:end]
        assert is_in_step(client), line[:end]
    assert b"t OK" in answer


@pytest.mark.parametrize("uidonly", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_changed_at_random(command: bytes, uidonly: bool) -> None:
    source = random.Random(command)
    client = opened()
    if uidonly:
        client.ask(b"e ENABLE UIDONLY\r\n")
    line = command % validity(client) if b"%d" in command else command
    for _ in range(60):
        changed = bytearray(line)
        for _ in range(source.randint(1, 3)):
            at = source.randrange(len(changed))
            changed[at : at + source.randint(0, 2)] = source.choice(NOISE)
        client.send(b"t " + bytes(changed) + b"\r\n")
        client.send(b"\r\n")
        client.take()
        if client.done:
            client = opened()
        assert is_in_step(client), bytes(changed)


@pytest.mark.parametrize(
    "parameters",
    [
        b"(QRESYNC (%d 1 1:4294967295))",
        b"(QRESYNC (%d 9223372036854775807 1:4294967295))",
        b"(QRESYNC (%d 1 1:4294967295 (1:4294967295 1:4294967295)))",
        b"(QRESYNC (%d 1 (1:4294967294 2:4294967295)))",
        b"(QRESYNC (%d 1 4000000000:4294967295))",
        b"(QRESYNC (%d 1 4:1,2:2,2,2))",
        b"(QRESYNC (4294967295 1 1:3))",
    ],
)
def test_absurd_sets_cost_nothing(parameters: bytes) -> None:
    """Sets are never written out, and no message is reported that there has never been."""
    client = opened()
    answer = client.ask(
        b"t SELECT INBOX " + (parameters % validity(client) if b"%d" in parameters else parameters) + b"\r\n"
    )
    assert b"t OK [READ-WRITE]" in answer
    vanished = [line for line in answer.split(b"\r\n") if line.startswith(b"* VANISHED")]
    assert vanished in ([], [b"* VANISHED (EARLIER) 3"])
    assert is_in_step(client)


def test_sets_of_too_many_ranges_are_refused() -> None:
    client = opened()
    many = b",".join([b"1"] * (MAX_RANGES + 1))
    assert b"t NO [LIMIT]" in client.ask(b"t SELECT INBOX (QRESYNC (%d 1 %b))\r\n" % (validity(client), many))
    assert is_in_step(client)


@pytest.mark.parametrize(
    "command",
    [
        b"SELECT INBOX (QRESYNC (1 1))",
        b"EXAMINE INBOX (CONDSTORE QRESYNC (1 1))",
        b"UID FETCH 1 FLAGS (CHANGEDSINCE 1 VANISHED)",
    ],
)
@pytest.mark.parametrize("enabled", [b"NOOP", b"ENABLE CONDSTORE"])
def test_nothing_of_qresync_without_enable(command: bytes, enabled: bytes) -> None:
    client = selected(services(), messages=1)
    client.ask(b"e %b\r\n" % enabled)
    assert client.ask(b"t " + command + b"\r\n").endswith(b"QRESYNC\r\n")
    assert client.session.selected is not None
    assert client.ask(b"u UID FETCH 1 FLAGS\r\n").startswith(b"* 1 FETCH (UID 1 FLAGS (\\Recent))")


def test_a_client_that_does_not_ask_is_served_as_before() -> None:
    service = services()
    client, other = selected(service, messages=3), selected(service)
    other.ask(b"e ENABLE QRESYNC\r\n")
    assert client.ask(b"a STORE 1 +FLAGS (\\Deleted)\r\n").startswith(b"* 1 FETCH (FLAGS (\\Deleted \\Recent))\r\na OK")
    assert client.ask(b"a UID STORE 1 +FLAGS.SILENT (\\Seen)\r\n") == b"a OK UID STORE completed\r\n"
    assert client.ask(b"a EXPUNGE\r\n") == b"* 1 EXPUNGE\r\na OK EXPUNGE completed\r\n"
    assert b"VANISHED 1\r\n" in other.ask(b"a NOOP\r\n")
    other.ask(b"a STORE 1 +FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\n")
    assert client.ask(b"a NOOP\r\n") == b"* 1 EXPUNGE\r\na OK NOOP completed\r\n"
    assert b"MODSEQ" not in client.ask(b"a FETCH 1 FULL\r\n")


def test_a_second_session_of_an_account_keeps_its_own_switches() -> None:
    service = services()
    first = selected(service, messages=1)
    first.ask(b"e ENABLE QRESYNC\r\n")
    second = connect(service)
    second.take()
    second.ask(b"l LOGIN anna@example.test secret\r\n")
    assert b"BAD" in second.ask(b"t SELECT INBOX (QRESYNC (1 1))\r\n")
    put(second)
    assert second.session.enabled == set()
