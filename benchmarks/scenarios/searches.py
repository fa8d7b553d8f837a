"""SEARCH by flags, dates, header fields and text, of 10,000 messages."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterator

from benchmarks.accounts import Accounts
from benchmarks.client import Imap
from benchmarks.corpus import RARE
from benchmarks.mail import BETWEEN, DISTINCT, FIRST_ARRIVAL, FLAGGED, UNSEEN
from benchmarks.scenarios.scenario import Scenario, Work, forget, forget_texts
from benchmarks.servers import TestedServer

COUNT = 10_000


def _search(command: bytes, expected: int | None, times: int) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, accounts.k10)
        client.command(command)
        yield None
        for _ in range(times):
            answer = client.command(command)
            found = answer.partition(b"\r\n")[0].split()[2:]
            assert expected is None or len(found) == expected, len(found)
        yield times
        client.close()

    return work


def subject_first(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    """Search the subjects of messages that no session has read."""
    forget(side, accounts, accounts.k10)
    client = accounts.imap(side, accounts.k10)
    yield None
    _search_rare(client, b"SUBJECT")
    yield 1
    client.close()


def _without_index(key: bytes) -> Work:
    """Search without a text index: every message is read."""

    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        forget_texts(side, accounts, accounts.k10)
        client = accounts.imap(side, accounts.k10)
        yield None
        _search_rare(client, key)
        yield 1
        client.close()
        side.forget_texts(accounts.k10)  # or the index would be made while others are measured

    return work


def _with_index(key: bytes) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, accounts.k10)
        _search_rare(client, key)
        side.wait_for_texts(accounts.k10, COUNT)
        yield None
        for _ in range(side.searches):
            _search_rare(client, key)
        yield side.searches
        client.close()

    return work


def _search_rare(client: Imap, key: bytes) -> None:
    lines = client.command(b'SEARCH %b "%b"' % (key, RARE.encode())).split(b"\r\n")
    # Both servers send progress responses during a long search.
    found = next(line for line in lines if line.startswith(b"* SEARCH")).split()[2:]
    assert len(found) == COUNT // 1000, found


def _unseen_since() -> int:
    """Return the number of unseen messages that arrived on 21 November 2023 or later."""
    day = timegm((2023, 11, 21, 0, 0, 0))
    return sum(number % UNSEEN == 0 and FIRST_ARRIVAL + number % DISTINCT * BETWEEN >= day for number in range(COUNT))


SCENARIOS = (
    Scenario("SEARCH UNSEEN in 10k", _search(b"SEARCH UNSEEN", -(-COUNT // UNSEEN), 60), needs=("k10",)),
    Scenario("SEARCH FLAGGED in 10k", _search(b"SEARCH FLAGGED", COUNT // FLAGGED, 60), needs=("k10",)),
    Scenario(
        "SEARCH UNSEEN SINCE in 10k",
        _search(b"SEARCH UNSEEN SINCE 21-Nov-2023", _unseen_since(), 60),
        0.2,
        needs=("k10",),
    ),
    Scenario("SEARCH SUBJECT in 10k, first", subject_first, rounds=2, needs=("k10", "warm")),
    Scenario("SEARCH SUBJECT in 10k", _search(b'SEARCH SUBJECT "%b"' % RARE.encode(), 10, 5), needs=("k10",)),
    Scenario("SEARCH FROM in 10k", _search(b'SEARCH FROM "anna"', None, 5), needs=("k10",)),
    Scenario("SEARCH TEXT in 10k, first", _without_index(b"TEXT"), rounds=2, needs=("k10", "warm")),
    Scenario("SEARCH BODY in 10k, first", _without_index(b"BODY"), rounds=2, needs=("k10", "warm")),
    Scenario("SEARCH TEXT in 10k, again", _with_index(b"TEXT"), rounds=2, needs=("k10",)),
)
