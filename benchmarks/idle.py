"""Many idle TLS connections: the cost of each, and the time until all of them are notified of new mail.

They belong to 200 accounts; each has its INBOX selected, and is in IDLE. CPU and notification are measured twice: when
the accounts have only been opened, and after other sessions have searched them and mail was delivered to them.
"""

from __future__ import annotations

import os
import select
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import cast

from attrs import frozen

from benchmarks.accounts import Accounts
from benchmarks.client import Imap, Lines
from benchmarks.report import Row, Section
from benchmarks.scenarios.scenario import MOST
from benchmarks.servers import DovecotServer, TestedServer, available_memory
from benchmarks.settings import HIBERNATING

CONNECTIONS = 1000
MOST_CONNECTION, MOST_ACCOUNT = 60.0, 100.0
"""Most KiB that a connection and an open account may take."""
SETTLING = 10.0
"""Seconds until the background work of the logins is done: indexes written back, processes idle."""
QUIET = 30.0
"""Seconds of the idle period."""
PATIENCE = 120.0
"""Seconds after which a notification is given up."""
SPARE = 20
"""Processes that may be there for sessions to come."""
SEARCHED = 4
"""The text of one of so many accounts is searched."""


@frozen
class Figures:
    """What one server needs."""

    connection: float
    """KiB (proportional set size) of a further connection to an account that is open."""
    account: float
    """KiB of an open account whose sessions are at rest."""
    each: float
    """KiB of all, divided by the connections."""
    machine: float
    """KiB that the machine has less available, divided by the connections; the client is included."""
    cpu: float
    """Seconds of CPU in the idle period."""
    half: float
    whole: float
    """Seconds until half, and all, are notified of new mail."""
    news: float
    """Seconds of CPU for that, with the delivery."""
    cpu_after: float
    half_after: float
    whole_after: float
    news_after: float
    """The same after the accounts were searched and delivered to; nan if that is not measured."""


@contextmanager
def connected(side: TestedServer, accounts: Accounts, count: int) -> Iterator[list[Imap]]:
    """Open connections in IDLE."""
    clients: list[Imap] = []
    try:
        _connect(side, accounts, clients, count)
        yield clients
    finally:
        for client in clients:
            client.raw.close()


def _connect(side: TestedServer, accounts: Accounts, clients: list[Imap], count: int) -> None:
    """Open further connections until there are `count`."""
    for number in range(len(clients), count):
        try:
            client = accounts.imap(side, accounts.people[number % len(accounts.people)], tls=True)
            clients.append(client)
            client.send(b"i IDLE\r\n")
            while not (line := client.line()).startswith(b"+"):
                assert line.startswith(b"* "), line
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{side.name}, connection {number + 1:,} of {count:,}: {error}") from error


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


def _use(side: TestedServer, accounts: Accounts) -> None:
    """Search the accounts by other sessions, read a list of each, and deliver to them by LMTP and by a foreign program."""
    for number, user in enumerate(accounts.people):
        client = accounts.imap(side, user)
        client.command(b"FETCH 1:* (UID FLAGS ENVELOPE)")
        client.command(b'SEARCH SUBJECT "harbour"')
        if number % SEARCHED == 0:
            client.command(b'SEARCH TEXT "harbour bridge"')
        client.close()
        maildir = side.maildir(user)
        name = f"{time.time():.6f}.P{os.getpid()}Q{number}.foreign"
        path = maildir / "tmp" / name
        path.write_bytes(accounts.mail.message(number))
        owner = maildir.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
        path.rename(maildir / "new" / name)
    _deliver(side, accounts)


def _receive(client: Imap) -> None:
    """Take what has arrived."""
    try:
        client.buffer += client.raw.recv(65536)
        while cast("ssl.SSLSocket", client.raw).pending():
            client.buffer += client.raw.recv(65536)
    except (ssl.SSLWantReadError, BlockingIOError):
        return


def _news(side: TestedServer, accounts: Accounts, clients: list[Imap]) -> tuple[float, float, float]:
    """Return the seconds from the start of a delivery until half, and all, of the clients have received EXISTS, or inf;
    and the seconds of CPU.
    """
    before = side.cpu()
    half, whole = _wait_for_news(side, accounts, clients)
    time.sleep(1)
    return half, whole, side.cpu() - before


def _wait_for_news(side: TestedServer, accounts: Accounts, clients: list[Imap]) -> tuple[float, float]:
    poll = select.poll()
    waiting = {}
    for client in clients:
        client.raw.setblocking(False)
        _receive(client)
        client.buffer = b""
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
            _receive(client)
            if b" EXISTS\r\n" in client.buffer:
                poll.unregister(descriptor)
                del waiting[descriptor]
        if half == inf and len(waiting) <= len(clients) / 2:
            half = time.monotonic() - start
    return half, time.monotonic() - start


def _rest(side: TestedServer) -> float:
    """Return seconds of CPU in an idle period."""
    before = side.cpu()
    time.sleep(QUIET)
    return side.cpu() - before


def _each(
    side: TestedServer, accounts: Accounts, count: int, settle: Callable[[], None] = lambda: None, *, used: bool = True
) -> Figures:
    for user in accounts.warm:
        accounts.imap(side, user, tls=True).close()
    time.sleep(2)
    machine, alone = available_memory(), side.memory()
    once = min(len(accounts.people), count // 2)
    with connected(side, accounts, once) as clients:
        time.sleep(SETTLING)
        opened = side.memory()
        _connect(side, accounts, clients, count)
        time.sleep(SETTLING)
        settle()
        memory = side.memory()
        machine -= available_memory()
        resting = _rest(side)
        figures = (resting, *_news(side, accounts, clients))
        after = (float("nan"),) * 4
        if used:
            _use(side, accounts)
            time.sleep(SETTLING)
            resting = _rest(side)
            after = (resting, *_news(side, accounts, clients))
    connection = (memory - opened) / (count - once) / 1024
    account = max(0.0, (opened - alone) / once / 1024 - connection)
    return Figures(connection, account, (memory - alone) / count / 1024, machine / count / 1024, *figures, *after)


def _hibernated(theirs: DovecotServer, accounts: Accounts, count: int) -> Figures:
    """Return the same for Dovecot with hibernated connections."""
    with theirs.with_settings(HIBERNATING):
        return _each(theirs, accounts, count, lambda: _wait_for_hibernation(theirs), used=False)


def _wait_for_hibernation(theirs: DovecotServer) -> None:
    start = time.monotonic()
    while (left := theirs.sessions_in_processes()) > SPARE:
        assert time.monotonic() - start < PATIENCE, f"{left} connections do not leave their processes"
        time.sleep(0.5)


LINES = (
    ("memory of a connection, KiB", "connection", 1),
    ("memory of an open account, KiB", "account", 1),
    ("memory of all, for each connection, KiB", "each", 1),
    ("memory of the machine, for each, client included, KiB", "machine", 1),
    (f"CPU in {QUIET:.0f} s, ms", "cpu", 1000),
    ("until half know of new mail, ms", "half", 1000),
    ("until all know, ms", "whole", 1000),
    ("CPU of the delivery and the notifications, ms", "news", 1000),
    (f"after use: CPU in {QUIET:.0f} s, ms", "cpu_after", 1000),
    ("after use: until half know of new mail, ms", "half_after", 1000),
    ("after use: until all know, ms", "whole_after", 1000),
    ("after use: CPU of the delivery and the notifications, ms", "news_after", 1000),
)


def _cell(value: float, factor: int) -> str:
    if value != value:
        return "-"
    return f"{value * factor:,.1f}" if value < inf else f"> {PATIENCE * factor:,.0f}"


def measure(
    ours: TestedServer, theirs: DovecotServer, accounts: Accounts, count: int = CONNECTIONS
) -> tuple[Sequence[Row], Section]:
    """Return rows, and all figures as a table."""
    mine, other = (_each(side, accounts, count) for side in (ours, theirs))
    asleep = _hibernated(theirs, accounts, count)
    most = MOST_CONNECTION + MOST_ACCOUNT * len(accounts.people) / count
    rows = [
        Row(f"{count:,} idle TLS connections, memory of each", mine.each, other.each, "KiB", most / other.each, 1.0),
        Row(f"{count:,} idle, memory beside Dovecot's hibernated", mine.each, asleep.each, "KiB", MOST, 1.0),
        Row(f"{count:,} idle, CPU in {QUIET:.0f} s", mine.cpu * 1000, other.cpu * 1000, "ms", MOST, 1.0),
        Row(f"{count:,} idle, CPU after use", mine.cpu_after * 1000, other.cpu_after * 1000, "ms", MOST, 1.0),
        Row(f"{count:,} idle, until all know of new mail", mine.whole * 1000, other.whole * 1000, "ms", MOST, 1.0),
        Row(f"{count:,} idle, news to each", mine.news / count * 1e6, other.news / count * 1e6, "us", MOST, 1.0),
    ]
    lines = [
        [name, *(_cell(getattr(each, attribute), factor) for each in (mine, other, asleep))]
        for name, attribute, factor in LINES
    ]
    note = (
        f"A message went to each of {len(accounts.people)} accounts, whose clients were {count:,} together. Use: sessions"
        " list all messages and search subjects, the text of every"
        f" {SEARCHED}th account is searched, and LMTP and a foreign program deliver to all."
    )
    return rows, Section(
        f"{count:,} idle TLS connections", ["what", "ours", "Dovecot", "Dovecot, hibernated"], lines, [note]
    )
