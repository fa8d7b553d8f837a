"""LMTP, POP3, and deliveries by a program that writes into the Maildir."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.accounts import SIZES, Accounts
from benchmarks.client import Lines
from benchmarks.foreign import Foreign
from benchmarks.scenarios.scenario import KIB_4, KIB_100, Scenario, Work, forget
from benchmarks.servers import TestedServer

FOREIGN = 20
"""Deliveries by a foreign program in one measurement."""


def _lmtp(octets: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = Lines(side.ports["lmtp"])
        client.reply(b"220")
        client.ask(b"LHLO bench.example.net\r\n", b"250")
        messages = [accounts.mail.wire_of_size(octets, number).replace(b"\r\n.", b"\r\n..") for number in range(100)]
        yield None
        for data in messages:
            client.ask(b"MAIL FROM:<anna@example.net>\r\n", b"250")
            client.ask(b"RCPT TO:<%b>\r\n" % accounts.lmtp.encode(), b"250")
            client.ask(b"DATA\r\n", b"354")
            client.ask(data + b"\r\n.\r\n", b"250")
        yield 100
        client.ask(b"QUIT\r\n", b"221")
        client.close()

    return work


def _pop3_first(name: str) -> Work:
    """Log in, LIST and UIDL, where no session has read the messages."""

    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        user = getattr(accounts, name)
        forget(side, accounts, user)
        yield None
        client = accounts.pop3(side, user)
        for command in (b"LIST\r\n", b"UIDL\r\n"):
            client.ask(command, b"+OK")
            assert client.lines() == SIZES[name]
        yield 1
        client.ask(b"QUIT\r\n", b"+OK")
        client.close()

    return work


def pop3(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    yield None
    client = accounts.pop3(side, accounts.k1)
    client.ask(b"UIDL\r\n", b"+OK")
    assert client.lines() == SIZES["k1"]
    for number in range(1, SIZES["k1"] + 1):
        client.ask(b"RETR %d\r\n" % number, b"+OK")
        assert client.until_dot() > 1000
    client.ask(b"QUIT\r\n", b"+OK")
    client.close()
    yield SIZES["k1"]


def _foreign(*, idle: bool) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        foreign = Foreign(side, accounts, idle=idle)
        yield None
        for _ in range(FOREIGN):
            foreign.deliver()
        yield FOREIGN
        foreign.close()

    return work


SCENARIOS = (
    Scenario("LMTP delivery of 4 KiB", _lmtp(KIB_4), 0.7, needs=("lmtp",)),
    Scenario("LMTP delivery of 100 KiB", _lmtp(KIB_100), 0.7, needs=("lmtp",)),
    Scenario("foreign delivery and NOOP", _foreign(idle=False), needs=("foreign",)),
    Scenario("foreign delivery and IDLE", _foreign(idle=True), needs=("foreign",)),
    Scenario("POP3 login, LIST, UIDL of 1k, first", _pop3_first("k1"), needs=("k1", "warm")),
    Scenario("POP3 login, LIST, UIDL of 10k, first", _pop3_first("k10"), needs=("k10", "warm")),
    Scenario("POP3 download of 1k", pop3),
)
