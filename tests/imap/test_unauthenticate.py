"""UNAUTHENTICATE (RFC 8437): what the session forgets, what it keeps, and the limits that hold again."""

from __future__ import annotations

import pytest

from mailserver.config.model import HiddenCapabilities
from mailserver.errors import LimitReached
from mailserver.imap.error_counts import FAILED_LOGINS
from mailserver.imap.input import LINE_BEFORE_LOGIN
from mailserver.types import Quota
from tests.fakes import Client
from tests.imap.sessions import MESSAGE, connect, logged_in, selected, services

LOGIN = b"l LOGIN bert@example.org secret2\r\n"
LEAVE = b"u UNAUTHENTICATE\r\n"


def test_the_session_is_as_before_the_login() -> None:
    client = selected(services(), messages=2)
    account = client.session.account
    client.ask(b"a ENABLE QRESYNC IMAP4rev2 UIDONLY\r\nb UID SEARCH RETURN (SAVE) ALL\r\n")
    session = client.session
    assert session.enabled
    assert session.utf8
    assert len(session.saved_result) == 2
    assert client.ask(LEAVE) == b"u OK logged out, log in again\r\n"
    assert (session.account, session.selected, session.user, session.enabled, session.utf8) == (
        None,
        None,
        "",
        set(),
        False,
    )
    assert not session.saved_result
    assert client.channel.user is None
    assert account not in session.services.accounts._open.values()
    assert client.ask(b"c ENABLE CONDSTORE\r\n").startswith(b"c BAD ")
    client.ask(LOGIN)
    assert session.user == "bert@example.org"
    assert client.ask(b'd CREATE a&AOQ-\r\ne LIST "" a*\r\n').count(b"a&AOQ-") == 1


def test_changes_of_the_mailbox_that_was_left_are_not_reported() -> None:
    service = services()
    first, second = selected(service, messages=1), selected(service)
    first.ask(LEAVE)
    second.ask(b"a STORE 1 +FLAGS (\\Deleted)\r\nb EXPUNGE\r\n")
    assert first.ask(b"c NOOP\r\n") == b"c OK NOOP completed\r\n"
    assert first.ask(b"l LOGIN anna@example.test secret\r\nd NOOP\r\n").endswith(b"d OK NOOP completed\r\n")


def test_the_limits_before_the_login_hold_again() -> None:
    client = logged_in(services())
    client.ask(LEAVE)
    assert client.ask(b"a NOOP ".ljust(LINE_BEFORE_LOGIN + 1, b"x") + b"\r\n") == b"a BAD line too long\r\n"
    assert client.ask(b"b LOGIN {4097}\r\n").startswith(b"b NO [TOOBIG] ")


def test_a_client_that_does_not_log_in_again_is_disconnected() -> None:
    client = logged_in(services())
    client.wait(1000)
    client.ask(LEAVE)
    client.wait(client.session.services.limits.login_time - 1)
    assert not client.done
    client.wait(2)
    assert b"* BYE too long without logging in\r\n" in client.take()
    assert client.done


def test_guesses_of_passwords_are_counted_over_all_logins() -> None:
    client = connect(services())
    client.take()
    for _ in range(FAILED_LOGINS - 1):
        client.ask(b"a LOGIN anna@example.test wrong\r\n")
    client.ask(b"b LOGIN anna@example.test secret\r\n" + LEAVE)
    assert not client.done
    assert b"* BYE " in client.ask(b"c LOGIN bert@example.org wrong\r\n")
    assert client.done


def test_an_address_with_too_many_such_connections_is_disconnected() -> None:
    client = logged_in(services())
    client.channel.logout_error = LimitReached("too many connections")
    answer = client.ask(LEAVE)
    assert answer.startswith(b"* BYE too many connections\r\nu OK ")
    assert client.done
    assert client.session.account is None


def test_rules_for_a_user_end_with_the_login_and_those_for_a_client_stay() -> None:
    rules = (
        HiddenCapabilities(("SORT*",), users=("anna@*",)),
        HiddenCapabilities(("IDLE",), client={"name": ("Phone",)}),
    )
    client = connect(services(imap={"hide": rules}))
    client.ask(b'i ID ("name" "Phone")\r\nb LOGIN anna@example.test secret\r\n')
    assert _offered(client) & {b"SORT", b"IDLE"} == set()
    client.ask(LEAVE)
    assert _offered(client) & {b"SORT", b"IDLE"} == {b"SORT"}
    client.ask(LOGIN)
    assert _offered(client) & {b"SORT", b"IDLE", b"UNAUTHENTICATE"} == {b"SORT", b"UNAUTHENTICATE"}


def _offered(client: Client) -> set[bytes]:
    return set(client.ask(b"c CAPABILITY\r\n").split())


def test_the_quota_is_that_of_the_present_user() -> None:
    service = services()
    client = logged_in(service)
    client.session.account.quota = Quota(messages=0)
    append = b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE)
    client.session.account.quota_as_of = client.channel.now()
    assert b"a NO [OVERQUOTA]" in client.ask(append)
    client.ask(LEAVE + LOGIN)
    assert b"a OK" in client.ask(append)


@pytest.mark.parametrize(
    "line", [b"u UNAUTHENTICATE \r\n", b"u UNAUTHENTICATE x\r\n", b"u UNAUTHENTICATE {1+}\r\nx\r\n"]
)
def test_arguments_are_refused_and_the_login_stays(line: bytes) -> None:
    client = logged_in(services())
    assert client.ask(line).startswith(b"u BAD ")
    assert client.session.account is not None


def test_it_is_not_offered_before_the_login_nor_while_deflate_is_active() -> None:
    client = connect(services())
    assert b"UNAUTHENTICATE" not in client.take()
    client.ask(LOGIN)
    assert b"UNAUTHENTICATE" in _offered(client)
    client.ask(b"d COMPRESS DEFLATE\r\n")
    assert "UNAUTHENTICATE" not in client.session.capabilities()
