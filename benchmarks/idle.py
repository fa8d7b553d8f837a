"""Many idle TLS connections: the cost of each, and the time until all of them are notified of new mail.

They belong to 200 accounts; each has its INBOX selected, and is in IDLE.
"""

from __future__ import annotations

import select
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import cast

from benchmarks.accounts import Accounts
from benchmarks.client import Imap, Lines
from benchmarks.report import Row, Section
from benchmarks.servers import DovecotServer, TestedServer
from benchmarks.settings import HIBERNATING

CONNECTIONS = 1000
MOST, MOST_HIBERNATED = 1 / 20, 1 / 2
"""Most memory that ours may take, as a share of a Dovecot process, and of a hibernated connection."""
SETTLING = 10.0
"""Seconds until the background work of the logins is done: indexes written back, processes idle."""
QUIET = 30.0
"""Seconds of the idle period."""
PATIENCE = 120.0
"""Seconds after which a notification is given up."""
SPARE = 20
"""Processes that may be there for sessions to come."""


@contextmanager
def connected(side: TestedServer, accounts: Accounts, count: int) -> Iterator[list[Imap]]:
    """Open connections in IDLE."""
    clients: list[Imap] = []
    try:
        for number in range(count):
            try:
                client = accounts.imap(side, accounts.people[number % len(accounts.people)], tls=True)
                clients.append(client)
                client.send(b"i IDLE\r\n")
                assert client.line().startswith(b"+"), "no continuation for IDLE"
            except (AssertionError, OSError) as error:
                raise AssertionError(f"{side.name}, connection {number + 1:,} of {count:,}: {error}") from error
        yield clients
    finally:
        for client in clients:
            client.raw.close()


def _deliver(side: TestedServer, accounts: Accounts) -> None:
    """Deliver one message to each account, in one transaction."""
    client = Lines(side.ports["lmtp"])
    client.reply(b"220")
    client.ask(b"LHLO bench.example.net\r\n", b"250")
    client.ask(b"MAIL FROM:<anna@example.net>\r\n", b"250")
    for user in accounts.people:
        client.ask(b"RCPT TO:<%b>\r\n" % user.encode(), b"250")
    client.ask(b"DATA\r\n", b"354")
    client.raw.sendall(accounts.mail.wire_of_size(4096).replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
    for _ in accounts.people:
        client.reply(b"250")
    client.ask(b"QUIT\r\n", b"221")
    client.close()


def _news(side: TestedServer, accounts: Accounts, clients: list[Imap]) -> tuple[float, float]:
    """Return the seconds from the start of a delivery until half, and all, of the clients have received EXISTS; or inf."""
    poll = select.poll()
    waiting = {}
    for client in clients:
        client.raw.setblocking(False)
        poll.register(client.raw, select.POLLIN)
        waiting[client.raw.fileno()] = client
    start = time.monotonic()
    _deliver(side, accounts)
    half = inf
    while waiting:
        if time.monotonic() - start > PATIENCE:
            return half, inf
        for descriptor, _ in poll.poll(1000):
            client = waiting[descriptor]
            try:
                client.buffer += client.raw.recv(65536)
                while cast("ssl.SSLSocket", client.raw).pending():
                    client.buffer += client.raw.recv(65536)
            except (ssl.SSLWantReadError, BlockingIOError):
                continue
            if b" EXISTS\r\n" in client.buffer:
                poll.unregister(descriptor)
                del waiting[descriptor]
        if half == inf and len(waiting) <= len(clients) / 2:
            half = time.monotonic() - start
    return half, time.monotonic() - start


def _each(
    side: TestedServer, accounts: Accounts, count: int, settle: Callable[[], None] = lambda: None
) -> tuple[float, float, float, float]:
    """Return KiB each, seconds of CPU in the idle period, and seconds until half and all are notified of new mail."""
    for user in accounts.people:
        accounts.imap(side, user, tls=True).close()  # memory of the account does not count for a connection
    time.sleep(2)
    before = side.memory()
    with connected(side, accounts, count) as clients:
        time.sleep(SETTLING)
        settle()
        memory = (side.memory() - before) / count / 1024
        cpu = side.cpu()
        time.sleep(QUIET)
        cpu = side.cpu() - cpu
        half, whole = _news(side, accounts, clients)
    return memory, cpu, half, whole


def _hibernated(theirs: DovecotServer, accounts: Accounts, count: int) -> tuple[float, float, float, float]:
    """Return the same for Dovecot with hibernated connections."""
    with theirs.with_settings(HIBERNATING):
        return _each(theirs, accounts, count, lambda: _wait_for_hibernation(theirs))


def _wait_for_hibernation(theirs: DovecotServer) -> None:
    start = time.monotonic()
    while (left := theirs.sessions_in_processes()) > SPARE:
        assert time.monotonic() - start < PATIENCE, f"{left} connections do not leave their processes"
        time.sleep(0.5)


def measure(
    ours: TestedServer, theirs: DovecotServer, accounts: Accounts, count: int = CONNECTIONS
) -> tuple[list[Row], Section]:
    """Return memory as two rows, and all figures as a table."""
    mine, other = (_each(side, accounts, count) for side in (ours, theirs))
    asleep = _hibernated(theirs, accounts, count)
    rows = [
        Row(f"{count:,} idle TLS connections, memory of each", mine[0], other[0], "KiB", MOST, 1.0),
        Row(f"{count:,} idle, Dovecot's hibernated", mine[0], asleep[0], "KiB", MOST_HIBERNATED, 1.0),
    ]
    names = (
        "memory of each, KiB", f"CPU in {QUIET:.0f} s, ms", "until half know of new mail, ms", "until all know, ms",
    )  # fmt: skip
    factors = (1, 1000, 1000, 1000)
    lines = [
        [name, *(f"{each * factor:,.1f}" if each < inf else f"> {PATIENCE * factor:,.0f}" for each in figures)]
        for name, factor, *figures in zip(names, factors, mine, other, asleep, strict=True)
    ]
    note = f"A message went to each of {len(accounts.people)} accounts, whose clients were {count:,} together."
    return rows, Section(
        f"{count:,} idle TLS connections", ["what", "ours", "Dovecot", "Dovecot, hibernated"], lines, [note]
    )
