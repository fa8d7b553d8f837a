"""The mail to a user whose account is nearly full."""

from __future__ import annotations

import email
import email.policy
import logging
from pathlib import Path

import pytest

from mailserver.errors import OverQuota
from mailserver.message.render import summarise
from mailserver.store.live.notices import Notices, compose
from mailserver.store.live.quota_warnings import QuotaWarnings, fill
from mailserver.store.memory import MemoryStore
from mailserver.store.quota import QuotaWarning, warned_level
from mailserver.store.receiving import Delivery, NewMessage
from mailserver.types import UNLIMITED, Quota, Usage
from tests.fakes import run_now
from tests.imap.sessions import logged_in, put, services

USER = "anna@example.test"
TEMPLATE = "{percent} % of {user}\n{used} of {limit}\n"


def made(quota: Quota, usage: Usage, template: str = TEMPLATE, user: str = USER):
    subject, text = fill(template, user, QuotaWarning(80, usage, quota))
    data = compose(user, subject, text, "mail.example.test", 1_700_000_000.0)
    assert b"\n" not in data.replace(b"\r\n", b"")
    return email.message_from_bytes(data, policy=email.policy.default)


def test_the_message() -> None:
    message = made(Quota(storage=10 << 20), Usage(8 << 20, 3, 1))
    assert message["Subject"] == f"80 % of {USER}"
    assert message["From"] == "Postmaster <postmaster@example.test>"
    assert message["To"] == USER
    assert message["Return-Path"] == "<>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content().strip() == "8.0 MiB of 10.0 MiB"


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        (Quota(messages=4), "3 of 4 messages"),
        (Quota(storage=UNLIMITED, messages=4), "3 of 4 messages"),
        (Quota(storage=1 << 40, messages=4), "3 of 4 messages"),
        (Quota(storage=2000, messages=1000), "1 KiB of 2 KiB"),
    ],
)
def test_the_fuller_limit_is_named(quota: Quota, words: str) -> None:
    assert made(quota, Usage(1500, 3, 1)).get_content().strip() == words


def test_any_text_and_any_name() -> None:
    message = made(
        Quota(messages=1), Usage(0, 1, 1), "Voll: {user} {\u00fc}\r\n{percent} {unknown} \u00e4\r\n", "\u00e4nna"
    )
    assert message["Subject"] == "Voll: \u00e4nna {\u00fc}"
    assert message.get_content().strip() == "80 {unknown} \u00e4"
    assert message["From"] == "Postmaster <postmaster@mail.example.test>"


def warned_service(text: Path | None = None):
    """An IMAP service whose users are warned, with a limit of ten messages."""
    service = services(store=MemoryStore(summarise, quota_warnings=(80, 100)))
    warnings = QuotaWarnings(Notices(lambda: service.accounts, run_now), run_now)
    warnings.text_file = text
    service.accounts.warn = warnings.send
    run_now(service.accounts.open(USER)).quota = Quota(messages=10)
    # Sessions do not look the limits up again.
    object.__setattr__(service, "quotas", service.quotas.__class__(Quota(messages=10)))
    return service


@pytest.mark.parametrize(
    ("user", "sender"),
    [
        ("jörg@bücher.test", "Postmaster <postmaster@xn--bcher-kva.test>"),
        ("anna@\u0378.test", "Postmaster <postmaster@mail.example.test>"),
        ("anna", "Postmaster <postmaster@mail.example.test>"),
    ],
)
def test_the_sender_has_a_domain_in_ascii(user: str, sender: str) -> None:
    message = made(Quota(storage=10 << 20), Usage(8 << 20, 3, 1), user=user)
    assert message["From"] == sender
    assert message["Message-ID"].isascii()


def test_it_is_delivered_once_and_beyond_the_quota() -> None:
    service = warned_service()
    client = logged_in(service)
    for _ in range(7):
        put(client)
    assert b"* STATUS INBOX (MESSAGES 7)" in client.ask(b"a STATUS INBOX (MESSAGES)\r\n")
    put(client)
    assert b"* STATUS INBOX (MESSAGES 9)" in client.ask(b"a STATUS INBOX (MESSAGES)\r\n")
    put(client)
    answer = client.ask(b"a APPEND INBOX {3+}\r\na:b\r\n")
    assert answer.startswith(b"a NO [OVERQUOTA]")
    assert b"* STATUS INBOX (MESSAGES 11)" in client.ask(b"a STATUS INBOX (MESSAGES)\r\n")
    assert client.ask(b"a APPEND INBOX {3+}\r\na:b\r\n").startswith(b"a NO [OVERQUOTA]")
    assert b"* STATUS INBOX (MESSAGES 11)" in client.ask(b"a STATUS INBOX (MESSAGES)\r\n")
    client.ask(b"a SELECT INBOX\r\n")
    assert b"Your mailbox is 80 % full" in client.ask(b"a FETCH 9 BODY.PEEK[HEADER.FIELDS (SUBJECT)]\r\n")
    assert b"Your mailbox is full" in client.ask(b"a FETCH 11 BODY.PEEK[HEADER.FIELDS (SUBJECT)]\r\n")


def test_the_text_is_that_of_a_file_while_it_can_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "text"
    path.write_text("Almost no room\nfor {user}\n")
    service = warned_service(path)
    live = run_now(service.accounts.open(USER))

    def add(count: int) -> None:
        for _ in range(count):
            staged = live.account.stage()
            staged.write(b"a:b\r\n\r\n")
            message = NewMessage(staged)
            run_now(live.deliver(lambda _account, message=message: Delivery("INBOX", [message])))

    add(8)
    inbox = live.account.mailbox("INBOX")
    assert b"Subject: Almost no room" in inbox.open_message(inbox.all_uids()[-1]).read()
    path.unlink()
    with caplog.at_level(logging.ERROR):
        add(1)
        with pytest.raises(OverQuota):
            add(1)
    assert "cannot be read" in caplog.text
    assert b"Subject: Your mailbox is full" in inbox.open_message(inbox.all_uids()[-1]).read()


@pytest.mark.parametrize(
    ("warned", "before", "after", "refused", "expected"),
    [
        (0, 10, 79, False, (0, False)),
        (0, 10, 80, False, (80, True)),
        (80, 80, 94, False, (80, False)),
        (80, 90, 99, False, (95, True)),
        (95, 50, 97, False, (95, True)),
        (95, 82, 85, False, (80, False)),
        (80, 60, 60, True, (100, True)),
        (100, 97, 98, False, (100, False)),
        (100, 97, 97, True, (100, False)),
        (100, 94, 94, False, (80, False)),
        (0, 120, 121, False, (100, True)),
    ],
)
def test_levels(warned: int, before: int, after: int, refused: bool, expected: tuple[int, bool]) -> None:
    assert warned_level(warned, (100, 80, 95), before, after, refused=refused) == expected
