"""Memory of 1,000 idle TLS connections over 100 accounts, each with its INBOX of 1,000 messages selected, in IDLE."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.client import Imap
from benchmarks.scenarios import Accounts
from benchmarks.servers import Side

CONNECTIONS = 1000
MOST = 100 * 1024
"""Octets that ours may take for each."""


def _memory_each(side: Side, accounts: Accounts) -> float:
    users = accounts.idle
    warm = [accounts.imap(side, user, tls=True) for user in users]
    for client in warm:
        client.close()
    time.sleep(2)
    before = side.memory()
    clients: list[Imap] = []
    try:
        for number in range(CONNECTIONS):
            client = accounts.imap(side, users[number % len(users)], tls=True)
            client.send(b"i IDLE\r\n")
            assert client.line().startswith(b"+"), "no continuation for IDLE"
            clients.append(client)
        time.sleep(2)
        return (side.memory() - before) / CONNECTIONS
    finally:
        for client in clients:
            client.raw.close()


def measure(ours: Side, theirs: Side, accounts: Accounts) -> Iterator[tuple[str, float, float, str, float, float]]:
    """One row, in KiB a connection; the target is absolute, told as the ratio that it means here."""
    mine, other = (_memory_each(side, accounts) / 1024 for side in (ours, theirs))
    yield ("idle TLS connection, memory", mine, other, "KiB", MOST / 1024 / other, 1.0)
