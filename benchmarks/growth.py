"""Growth of costs with the size of a mailbox, the number of open connections, and the number of workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from attrs import frozen

from benchmarks import mixed
from benchmarks.accounts import Accounts
from benchmarks.client import Lines
from benchmarks.idle import connected
from benchmarks.report import Section
from benchmarks.servers import Mailserver, TestedServer, available_memory

CONNECTIONS = (10, 30, 100, 300, 1000)
LARGE_CONNECTIONS = (3000, 10_000)
MEMORY_SHARE = 0.6
"""Share of the machine's memory that idle connections may take; a server that would take more is left out."""
DELIVERIES = 30
LOAD_SECONDS = 6.0


@frozen
class Curve:
    """One cost as a function of one quantity. A point is (quantity, ours, Dovecot's or None if not measured)."""

    title: str
    quantity: str
    unit: str
    points: Sequence[tuple[int, float, float | None]]


def _spent(side: TestedServer, times: int, work: Callable[[], object]) -> float:
    """Return microseconds of server CPU for each of `times` runs."""
    work()
    before = side.cpu()
    for _ in range(times):
        work()
    return (side.cpu() - before) / times * 1e6


OF_MAILBOX = (
    ("first SELECT, a message", "us"),
    ("NOOP", "us"),
    ("IDLE and its end", "us"),
    ("SELECT of a known mailbox", "us"),
    ("FETCH of flags, a message", "us"),
    ("newest 50 with envelopes", "us"),
    ("LMTP delivery, mailbox open", "us"),
)


def _of_mailbox(side: TestedServer, accounts: Accounts, user: str, size: int) -> tuple[float, ...]:
    """Return the costs in the order of OF_MAILBOX."""
    try:
        return _costs(side, accounts, user, size)
    except AssertionError as error:
        raise AssertionError(f"{side.name}, {size:,} messages: {error}") from error


def _costs(side: TestedServer, accounts: Accounts, user: str, size: int) -> tuple[float, ...]:
    side.forget(user)
    client = accounts.imap(side, user, select=False)
    before = side.cpu()
    client.command(b"SELECT INBOX")
    first = (side.cpu() - before) * 1e6 / size

    def idle() -> None:
        client.send(b"i IDLE\r\n")
        while not client.line().startswith(b"+"):
            pass
        client.send(b"DONE\r\n")
        client.answer(b"i ")

    def select() -> None:
        other.command(b"UNSELECT")
        other.command(b"SELECT INBOX")

    noop = _spent(side, 1000, lambda: client.command(b"NOOP"))
    idling = _spent(side, 300, idle)
    times = max(1, 200_000 // size)
    flags = _spent(side, times, lambda: client.command(b"FETCH 1:* (UID FLAGS)")) / size
    newest = _spent(side, 30, lambda: client.command(b"FETCH %d:* (UID FLAGS ENVELOPE)" % (size - 49)))
    other = accounts.imap(side, user)
    again = _spent(side, 30, select)
    other.close()
    delivery = _deliveries(side, accounts, user)
    client.command(b"NOOP")
    client.command(b"STORE %d:* +FLAGS.SILENT (\\Deleted)" % (size + 1))
    client.command(b"EXPUNGE")
    client.close()
    return first, noop, idling, again, flags, newest, delivery


def _deliveries(side: TestedServer, accounts: Accounts, user: str) -> float:
    client = Lines(side.ports["lmtp"])
    client.reply(b"220")
    client.ask(b"LHLO bench.example.net\r\n", b"250")
    data = accounts.mail.wire_of_size(4096).replace(b"\r\n.", b"\r\n..")

    def deliver() -> None:
        client.ask(b"MAIL FROM:<anna@example.net>\r\n", b"250")
        client.ask(b"RCPT TO:<%b>\r\n" % user.encode(), b"250")
        client.ask(b"DATA\r\n", b"354")
        client.ask(data + b"\r\n.\r\n", b"250")

    spent = _spent(side, DELIVERIES, deliver)
    client.ask(b"QUIT\r\n", b"221")
    client.close()
    return spent


def of_mailboxes(ours: TestedServer, theirs: TestedServer, accounts: Accounts, sizes: dict[str, int]) -> list[Curve]:
    """Return curves over the number of messages; `sizes` has that of each account."""
    found = {
        size: (_of_mailbox(ours, accounts, user, size), _of_mailbox(theirs, accounts, user, size))
        for user, size in sizes.items()
    }
    return [
        Curve(title, "messages", unit, [(size, mine[at], other[at]) for size, (mine, other) in found.items()])
        for at, (title, unit) in enumerate(OF_MAILBOX)
    ]


def _of_connections(side: TestedServer, accounts: Accounts, count: int, alone: float) -> tuple[float, float]:
    """Return the cost of NOOP beside `count` idle TLS connections, and the memory of these in MiB."""
    with connected(side, accounts, count):
        time.sleep(2)  # background work that the logins have started
        memory = (side.memory() - alone) / 2**20
        client = accounts.imap(side, accounts.k1)
        noop = _spent(side, 1000, lambda: client.command(b"NOOP"))
        client.close()
    return noop, max(memory, 0.01)


def of_connections(ours: TestedServer, theirs: TestedServer, accounts: Accounts, counts: Sequence[int]) -> list[Curve]:
    """Return curves over the number of idle connections, as far as the machine's memory allows for each server."""
    noop: list[tuple[int, float, float | None]] = []
    memory: list[tuple[int, float, float | None]] = []
    alone, room = [], []
    for side in (ours, theirs):
        side.restart()  # memory that an earlier load has left allocated would be used without being counted
        accounts.imap(side, accounts.k1).close()
        alone.append(side.memory())
        room.append(available_memory() * MEMORY_SHARE / 2**20)
    for count in counts:
        mine = _of_connections(ours, accounts, count, alone[0])
        other: tuple[float, float] | tuple[None, None] = (None, None)
        least = memory[-1][2] * count / memory[-1][0] if memory and memory[-1][2] is not None else 0.0
        if not memory or (memory[-1][2] is not None and least < room[1]):
            try:
                other = _of_connections(theirs, accounts, count, alone[1])
            except AssertionError as error:
                print(f"not measured: {error}")  # its configured limits are exceeded
        noop.append((count, mine[0], other[0]))
        memory.append((count, mine[1], other[1]))
    return [
        Curve("NOOP beside idle connections", "connections", "us", noop),
        Curve("memory of idle connections", "connections", "MiB", memory),
    ]


def of_workers(ours: Mailserver, theirs: TestedServer, accounts: Accounts, most: int) -> list[Curve]:
    """Return curves over the number of workers, for a saturating mixed load; Dovecot's figure is the same at each."""
    counts = sorted({1, *(2**power for power in range(1, 8) if 2**power < most), most})
    mixed.load(theirs, accounts, 2.0)
    other = mixed.load(theirs, accounts, LOAD_SECONDS)
    found = []
    for count in counts:
        ours.use_workers(count)
        mixed.load(ours, accounts, 2.0)
        found.append((count, mixed.load(ours, accounts, LOAD_SECONDS)))
    return [
        Curve("mixed load", "workers", "commands/s", [(count, each.rate, other.rate) for count, each in found]),
        Curve("mixed load, a command", "workers", "us", [(count, each.cost, other.cost) for count, each in found]),
    ]


def table(curves: Sequence[Curve]) -> Section:
    """Return the points of all curves as a table."""
    lines = [
        [
            f"{curve.title} ({curve.unit})",
            f"{at:,} {curve.quantity}",
            f"{mine:,.2f}",
            "-" if other is None else f"{other:,.2f}",
        ]
        for curve in curves
        for at, mine, other in curve.points
    ]
    notes = []
    if any(other is None for curve in curves for _at, _mine, other in curve.points):
        notes.append(
            f"-: it would need more than {MEMORY_SHARE:.0%} of this machine's memory, or its server accepts no more."
        )
    return Section("Growth", ["what", "of", "ours", "Dovecot"], lines, notes)
