"""RETR of messages that the kernel has in memory: no hop, and the same answers."""

from __future__ import annotations

import os
from pathlib import Path

from mailserver.config.model import Pop3
from mailserver.pop3.commands import TABLE
from mailserver.pop3.session import Services, Session
from mailserver.sasl.registry import MECHANISMS, Mechanisms
from mailserver.store.live import LiveAccounts
from mailserver.store.maildir.account.store import MaildirStore
from tests.fakes import Client, DirectRunner, FakeAuthenticator, info
from tests.pop3.dialogs import EMPTY_SUMMARY

USER, PASSWORD = "anna@example.test", "secret"
TEXTS = [b"Subject: %d\n\n.dot\ntext\n" % number for number in range(4)]
ANSWERS = [
    b"+OK %d octets\r\nSubject: %d\r\n\r\n..dot\r\ntext\r\n.\r\n" % (len(text) + text.count(b"\n"), number)
    for number, text in enumerate(TEXTS)
]


class Runner(DirectRunner):
    """Counts the hops of all accounts."""

    hops = 0

    def run(self, operation):  # type: ignore[no-untyped-def]
        Runner.hops += 1
        return super().run(operation)


def logged_in(path: Path) -> tuple[Client, Path]:
    cur = path / "example.test" / "anna" / "Maildir" / "cur"
    for name in ("cur", "new", "tmp"):
        (cur.parent / name).mkdir(parents=True)
    for number, text in enumerate(TEXTS):
        (cur / f"170000000{number}.a.host:2,").write_bytes(text)
    services = Services(
        FakeAuthenticator({USER: PASSWORD}),
        LiveAccounts(MaildirStore(path, lambda _message: EMPTY_SUMMARY), Runner),
        Pop3(),
        Mechanisms(MECHANISMS),
        "mail.example.test",
        table=TABLE,
    )
    client = Client(lambda channel: Session(channel, services), info("pop3s"))
    client.ask(b"USER " + USER.encode() + b"\r\nPASS " + PASSWORD.encode() + b"\r\n")
    return client, cur


def test_messages_in_any_order_need_one_hop(tmp_path: Path) -> None:
    client, _cur = logged_in(tmp_path)
    before = Runner.hops
    # The first one is read with its followers, and the names of all files with them.
    for number in (3, 1, 4, 2, 2, 1):
        assert client.ask(b"RETR %d\r\n" % number) == ANSWERS[number - 1]
    assert Runner.hops == before + 1


def test_a_message_that_is_gone_is_refused(tmp_path: Path) -> None:
    client, cur = logged_in(tmp_path)
    assert client.ask(b"RETR 3\r\n") == ANSWERS[2]
    os.unlink(cur / "1700000000.a.host:2,")
    assert client.ask(b"RETR 1\r\n").startswith(b"-ERR")
    assert client.ask(b"RETR 2\r\n") == ANSWERS[1]


def test_what_was_retrieved_from_memory_is_seen_afterwards(tmp_path: Path) -> None:
    client, cur = logged_in(tmp_path)
    for number in (4, 1):
        assert client.ask(b"RETR %d\r\n" % number) == ANSWERS[number - 1]
    client.ask(b"QUIT\r\n")
    assert sorted(name[-3:] for name in os.listdir(cur)) == ["2,S", "2,S", ":2,", ":2,"]
