"""Logins, handshakes, SELECT and NOOP."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from benchmarks.accounts import SIZES, Accounts
from benchmarks.client import Imap, tls_context
from benchmarks.scenarios.scenario import Scenario, Work, forget
from benchmarks.servers import TestedServer


def login_plain(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    yield None
    for _ in range(40):
        client = accounts.imap(side, accounts.k1, select=False)
        client.close()
    yield 40


def handshake_full(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    yield None
    for _ in range(60):
        client = Imap(side.ports["imaps"], tls=side.ca)
        client.close()
    yield 60


def handshake_resumed(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    context = tls_context(side.ca)
    first = Imap(side.ports["imaps"], tls=side.ca)
    first.command(b"NOOP")  # TLS 1.3 tickets come with the first data
    assert isinstance(first.raw, ssl.SSLSocket)
    session = first.raw.session
    first.close()
    assert context is tls_context(side.ca)
    yield None
    for _ in range(60):
        client = Imap(side.ports["imaps"], tls=side.ca, session=session)
        client.command(b"NOOP")
        assert isinstance(client.raw, ssl.SSLSocket)
        assert client.raw.session_reused, "the session was not resumed"
        session = client.raw.session or session
        client.close()
    yield 60


def _select_first(name: str) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        user = getattr(accounts, name)
        forget(side, accounts, user)
        client = accounts.imap(side, user, select=False)
        yield None
        answer = client.command(b"SELECT INBOX")
        assert b"* %d EXISTS" % SIZES[name] in answer, answer
        yield 1
        client.close()

    return work


def _select_new_session(name: str, times: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        user = getattr(accounts, name)
        accounts.imap(side, user).close()
        clients = [accounts.imap(side, user, select=False) for _ in range(times)]
        yield None
        for client in clients:
            assert b"* %d EXISTS" % SIZES[name] in client.command(b"SELECT INBOX")
        yield times
        for client in clients:
            client.close()

    return work


def _select_same_session(name: str, times: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, getattr(accounts, name))
        yield None
        for _ in range(times):
            assert b"* %d EXISTS" % SIZES[name] in client.command(b"SELECT INBOX")
        yield times
        client.close()

    return work


def noop(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.k10)
    yield None
    for _ in range(3000):
        client.command(b"NOOP")
    yield 3000
    client.close()


def noop_pipelined(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client = accounts.imap(side, accounts.k10)
    batch = b"".join(b"p NOOP\r\n" for _ in range(200))
    yield None
    for _ in range(50):
        client.send(batch)
        for _ in range(200):
            assert client.line().startswith(b"p OK")
    yield 10_000
    client.close()


SCENARIOS = (
    Scenario("login, plain", login_plain, 0.7),
    Scenario("TLS handshake, full", handshake_full),
    Scenario("TLS handshake, resumed", handshake_resumed),
    Scenario("SELECT 1k, first", _select_first("k1"), needs=("k1", "warm")),
    Scenario("SELECT 10k, first", _select_first("k10"), needs=("k10", "warm")),
    Scenario("SELECT 100k, first", _select_first("k100"), rounds=2, needs=("k100", "warm")),
    Scenario("SELECT 1k, new session", _select_new_session("k1", 100)),
    Scenario("SELECT 10k, new session", _select_new_session("k10", 100), needs=("k10",)),
    Scenario("SELECT 100k, new session", _select_new_session("k100", 50), needs=("k100",)),
    Scenario("SELECT 1k, same session", _select_same_session("k1", 400)),
    Scenario("SELECT 10k, same session", _select_same_session("k10", 400), needs=("k10",)),
    Scenario("SELECT 100k, same session", _select_same_session("k100", 300), needs=("k100",)),
    Scenario("NOOP", noop, needs=("k10",)),
    Scenario("NOOP, pipelined", noop_pipelined, needs=("k10",)),
)
