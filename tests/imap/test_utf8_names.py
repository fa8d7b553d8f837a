"""Mailbox names in UTF-8, for a session that has it on (RFC 9051 5.1)."""

from __future__ import annotations

import pytest

from tests.fakes import Client
from tests.imap.sessions import logged_in, services

NAME = "Entwürfe & Rest".encode()
ENCODED = b"Entw&APw-rfe &- Rest"


@pytest.fixture
def client() -> Client:
    client = logged_in(services())
    client.session.utf8 = True
    return client


def test_names_go_both_ways_in_utf8(client: Client) -> None:
    assert client.ask(b'a CREATE "%b"\r\n' % NAME).endswith(b"] CREATE completed\r\n")
    assert b' "/" "%b"\r\n' % NAME in client.ask(b'a LIST "" "*"\r\n')
    assert b' "/" "%b"\r\n' % NAME in client.ask(b'a LIST "" "%b%%"\r\n' % "Entwü".encode())
    assert b' "/" "%b"\r\n' % NAME in client.ask(b'a LIST "" ("*") RETURN (CHILDREN)\r\n')
    assert client.ask(b'a SUBSCRIBE "%b"\r\n' % NAME) == b"a OK SUBSCRIBE completed\r\n"
    assert b' "/" "%b"\r\n' % NAME in client.ask(b'a LSUB "" "*"\r\n')
    assert client.ask(b'a STATUS "%b" (MESSAGES)\r\n' % NAME).startswith(b'* STATUS "%b" (MESSAGES 0)\r\n' % NAME)
    assert client.ask(b"a STATUS {%d+}\r\n%b (MESSAGES)\r\n" % (len(NAME), NAME)).endswith(b"a OK STATUS completed\r\n")
    assert client.ask(b'a GETQUOTAROOT "%b"\r\n' % NAME).startswith(b'* QUOTAROOT "%b" "User quota"\r\n' % NAME)
    assert b"a OK [READ-WRITE]" in client.ask(b'a SELECT "%b"\r\n' % NAME)
    assert b"a OK" in client.ask(b'a RENAME "%b" "%b"\r\n' % (NAME, "Größe".encode()))


def test_answers_are_not_shared_with_sessions_of_modified_utf7(client: Client) -> None:
    client.ask(b'a CREATE "%b"\r\n' % NAME)
    for question in (b'a LIST "" "*"\r\n', b'a LIST "" ("*") RETURN (CHILDREN)\r\n'):
        for _twice in range(2):
            client.session.utf8 = True
            assert b' "/" "%b"\r\n' % NAME in client.ask(question)
            client.session.utf8 = False
            assert b' "/" "%b"\r\n' % ENCODED in client.ask(question)


def test_modified_utf7_is_not_read(client: Client) -> None:
    client.ask(b'a CREATE "%b"\r\n' % NAME)
    assert client.ask(b'a STATUS "%b" (MESSAGES)\r\n' % ENCODED).startswith(b"a NO [NONEXISTENT]")


def is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("name", [b"\xff", b"caf\xc3", "cafe\u0301".encode(), "a\u0085b".encode()])
def test_what_is_no_net_unicode_cannot_be_created(client: Client, name: bytes) -> None:
    for command in (b'a CREATE "%b"\r\n' % name, b'a RENAME INBOX "%b"\r\n' % name):
        refusal = b"a NO [CANNOT]" if is_utf8(name) else b"a BAD "
        assert client.ask(command).startswith(refusal)
    assert name not in client.ask(b'a LIST "" "*"\r\n')


def test_a_name_of_another_form_that_exists_can_be_read(client: Client) -> None:
    client.session.account.account.create("cafe\u0301")
    name = "cafe\u0301".encode()
    assert b' "/" "%b"\r\n' % name in client.ask(b'a LIST "" "*"\r\n')
    assert b"a OK" in client.ask(b'a SELECT "%b"\r\n' % name)


def test_inbox_is_not_written_with_a_dotless_i(client: Client) -> None:
    name = "ınbox".encode()
    assert client.ask(b'a CREATE "%b"\r\n' % name).startswith(b"a OK")
    assert client.ask(b'a LIST "" "%b"\r\n' % name) == (
        b'* LIST (\\HasNoChildren) "/" "%b"\r\na OK LIST completed\r\n' % name
    )
    assert client.ask(b'a DELETE "%b"\r\n' % name).startswith(b"a OK")
    assert client.ask(b'a LIST "" "iNb%"\r\n').startswith(b'* LIST (\\HasNoChildren) "/" INBOX\r\n')
