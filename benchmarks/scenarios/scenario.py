"""A scenario: one row of the table.

It is a generator: it prepares, yields, does the work, yields the number of operations, and cleans up. Only what lies
between the two yields is counted. Every reply is checked: a wrong answer ends the scenario.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from attrs import frozen

from benchmarks.accounts import Accounts
from benchmarks.servers import TestedServer

KIB_4, KIB_100 = 4096, 102_400
MOST = 1.0
"""Most CPU that ours may take, as a multiple of Dovecot's."""

Work = Callable[[TestedServer, Accounts], Iterator[int | None]]


@frozen
class Scenario:
    """One row of the table."""

    name: str
    work: Work
    target: float = MOST
    """Below MOST where another server was measured at that share of Dovecot's CPU, or where an index should save it."""
    rounds: int = 3
    needs: tuple[str, ...] = ("k1",)
    """Accounts whose mail must be there: fields of `Accounts`."""


def forget(side: TestedServer, accounts: Accounts, user: str) -> None:
    """Drop every cache of an account.

    A server of ours restarts for that, and then serves an account of its own in each protocol, as the first sessions of
    a process run much for the first time; Dovecot's processes go on.
    """
    side.forget(user)
    _warm(side, accounts)


def forget_texts(side: TestedServer, accounts: Accounts, user: str) -> None:
    """Drop the text index of an account, as `forget` does with all caches."""
    side.forget_texts(user)
    _warm(side, accounts)


def _warm(side: TestedServer, accounts: Accounts) -> None:
    for warm in accounts.warm:
        client = accounts.imap(side, warm)
        client.command(b"FETCH 1:* (ENVELOPE BODYSTRUCTURE)")
        client.command(b'SEARCH SUBJECT "harbour"')
        client.close()
        accounts.pop3(side, warm).close()


_draws: dict[tuple[str, str], random.Random] = {}


def draw(side: TestedServer, name: str) -> random.Random:
    """Return the random numbers of a scenario on a server: the same for all servers, others in each repetition."""
    return _draws.setdefault((side.name, name), random.Random(name))
