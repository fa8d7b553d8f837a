"""Capabilities that are hidden from some clients, and the configured answer to ID."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mailserver.config.model import HiddenCapabilities
from tests.fakes import Client, info
from tests.imap.sessions import connect, services

LOGIN = b"l LOGIN anna@example.test secret\r\n"
OUTLOOK = b'i ID ("name" "Outlook for Mac" "version" "16.2")\r\n'


def client_of(*rules: dict[str, Any], **facts: Any) -> Client:
    hide = tuple(HiddenCapabilities(**rule) for rule in rules)
    return connect(services(imap={"hide": hide}), info(**facts))


def tokens(answer: bytes) -> set[str]:
    """The tokens of the last list in an answer."""
    return set(re.findall(rb"CAPABILITY ([^\]\r]*IMAP4rev1[^\]\r]*)", answer)[-1].decode().split())


def test_a_rule_without_conditions_is_for_all() -> None:
    client = client_of({"capabilities": ("SORT*", "idle")})
    for answer in (client.take(), client.ask(b"a CAPABILITY\r\n"), client.ask(LOGIN), client.ask(b"b CAPABILITY\r\n")):
        found = tokens(answer)
        assert "IMAP4rev1" in found
        assert not [token for token in found if token.startswith("SORT") or token == "IDLE"]


def test_a_hidden_capability_is_not_enabled() -> None:
    assert b"* ENABLED CONDSTORE\r\n" in _enabled(client_of())
    assert b"* ENABLED\r\n" in _enabled(client_of({"capabilities": ("CONDSTORE",)}))


def _enabled(client: Client) -> bytes:
    client.take()
    client.ask(LOGIN)
    return client.ask(b"e ENABLE CONDSTORE\r\n")


def test_a_hidden_command_still_works() -> None:
    client = client_of({"capabilities": ("UNSELECT",)})
    client.take()
    client.ask(LOGIN)
    client.ask(b"s SELECT INBOX\r\n")
    assert client.ask(b"u UNSELECT\r\n") == b"u OK UNSELECT completed\r\n"


def test_hidden_notify_is_refused() -> None:
    command = b"n NOTIFY SET (personal (MailboxName))\r\n"
    for rules, status in (((), b"n OK "), (({"capabilities": ("NOTIFY",)},), b"n BAD ")):
        client = client_of(*rules)
        client.take()
        client.ask(LOGIN)
        assert client.ask(command).startswith(status)


def test_a_rule_for_a_client_fits_from_its_id_on_and_the_new_list_comes_with_the_answer() -> None:
    rule = {"capabilities": ("IDLE",), "client": {"Name": ("Outlook*", "x"), "version": ("16.*",)}}
    client = client_of(rule)
    assert "IDLE" in tokens(client.take())
    answer = client.ask(OUTLOOK)
    assert answer.startswith(b'* ID ("name" "mailserver")\r\n* CAPABILITY IMAP4rev1 ')
    assert "IDLE" not in tokens(answer)
    assert "IDLE" not in tokens(client.ask(LOGIN))
    assert "IDLE" in tokens(client.ask(b'i ID ("name" "Thunderbird")\r\n'))


@pytest.mark.parametrize(
    "answer", [b"i ID NIL\r\n", b'i ID ("name" "Outlook" "version" "15.0")\r\n', b'i ID ("name" NIL)\r\n']
)
def test_another_id_hides_nothing(answer: bytes) -> None:
    client = client_of({"capabilities": ("IDLE",), "client": {"name": ("Outlook*",), "version": ("16.*",)}})
    client.take()
    assert b"CAPABILITY" not in client.ask(answer)
    assert "IDLE" in tokens(client.ask(LOGIN))


def test_a_rule_for_a_user_fits_from_the_login_on() -> None:
    client = client_of({"capabilities": ("IDLE",), "users": ("*@example.org", "anna@*")})
    assert "IDLE" in tokens(client.take())
    assert "IDLE" not in tokens(client.ask(LOGIN))
    other = client_of({"capabilities": ("IDLE",), "users": ("*@example.org",)})
    other.take()
    assert "IDLE" in tokens(other.ask(LOGIN))


@pytest.mark.parametrize(
    ("local", "hidden"),
    [("192.0.2.1:143", True), ("[2001:db8::1]:143", True), ("192.0.2.1:1143", False), ("/run/imap", False)],
)
def test_a_rule_for_a_listener(local: str, hidden: bool) -> None:
    client = client_of({"capabilities": ("IDLE",), "ports": (143,)}, local=local)
    assert ("IDLE" not in tokens(client.take())) is hidden


def test_all_conditions_of_a_rule_must_fit() -> None:
    rule = {"capabilities": ("IDLE",), "ports": (993,), "users": ("anna@*",), "client": {"name": ("Outlook*",)}}
    client = client_of(rule)
    client.take()
    assert "IDLE" in tokens(client.ask(LOGIN))
    assert "IDLE" not in tokens(client.ask(OUTLOOK))


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({}, b"* ID NIL\r\n"),
        ({"name": ("Post",), "support-url": ('https://example.org/?a="b"',)}, b'* ID ("name" "Post" "support-url" "https://example.org/?a=\\"b\\"")\r\n'),
        ({"vendor": ("Müller", "GmbH")}, b'* ID ("vendor" {12}\r\nM\xc3\xbcller GmbH)\r\n'),
    ],
)  # fmt: skip
def test_the_answer_to_id_is_configured(fields: dict[str, tuple[str, ...]], answer: bytes) -> None:
    client = connect(services(imap={"id": fields}))
    client.take()
    assert client.ask(b"i ID NIL\r\n") == answer + b"i OK ID completed\r\n"
