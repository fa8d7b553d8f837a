"""SORT and THREAD of 10,000 messages: the first time, and again as a webmail does every few seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.accounts import Accounts
from benchmarks.client import Imap
from benchmarks.scenarios.scenario import Scenario, Work, forget
from benchmarks.servers import TestedServer

COUNT = 10_000
AGAIN = 20
_NUMBER = re.compile(rb"[0-9]+")

COMMANDS = {
    "SORT DATE": b"SORT (DATE) UTF-8 ALL",
    "SORT SUBJECT": b"SORT (SUBJECT) UTF-8 ALL",
    "THREAD REFERENCES": b"THREAD REFERENCES UTF-8 ALL",
}


def _order(client: Imap, command: bytes) -> None:
    lines = client.command(command).split(b"\r\n")
    name = b"* " + command.partition(b" ")[0]
    answer = next(line for line in lines if line.startswith(name))
    assert len(_NUMBER.findall(answer)) == COUNT, answer[:100]


def _first(command: bytes) -> Work:
    """Order messages that no session has read."""

    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        forget(side, accounts, accounts.k10)
        client = accounts.imap(side, accounts.k10)
        yield None
        _order(client, command)
        yield 1
        client.close()

    return work


def _again(command: bytes) -> Work:
    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, accounts.k10)
        _order(client, command)
        yield None
        for _ in range(AGAIN):
            _order(client, command)
        yield AGAIN
        client.close()

    return work


SCENARIOS = (
    *[
        Scenario(f"{name} in 10k, first", _first(command), rounds=2, needs=("k10", "warm"))
        for name, command in COMMANDS.items()
    ],
    *[Scenario(f"{name} in 10k", _again(command), 0.17, needs=("k10",)) for name, command in COMMANDS.items()],
)
