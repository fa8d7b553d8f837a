"""How costs grow: with the size of a mailbox, with the connections that are open, with the workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from attrs import frozen

from benchmarks import mixed
from benchmarks.client import Lines
from benchmarks.idle import connected
from benchmarks.mail import message
from benchmarks.report import Section
from benchmarks.scenarios import Accounts
from benchmarks.servers import Ours, Side, available_memory

CONNECTIONS = (10, 30, 100, 300, 1000)
LARGE_CONNECTIONS = (3000, 10_000)
MEMORY_SHARE = 0.6
"""Of the machine's memory that idle connections may take; a side that would take more is left out."""
DELIVERIES = 30
LOAD_SECONDS = 6.0


@frozen
class Curve:
    """One cost over one quantity: (quantity, ours, Dovecot's or None where it was not measured)."""

    title: str
    quantity: str
    unit: str
    points: Sequence[tuple[int, float, float | None]]


def _spent(side: Side, times: int, work: Callable[[], object]) -> float:
    """Microseconds of server CPU for each of so many."""
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


def _of_mailbox(side: Side, accounts: Accounts, user: str, size: int) -> tuple[float, ...]:
    """As OF_MAILBOX."""
    try:
        return _costs(side, accounts, user, size)
    except AssertionError as error:
        raise AssertionError(f"{side.name}, {size:,} messages: {error}") from error


def _costs(side: Side, accounts: Accounts, user: str, size: int) -> tuple[float, ...]:
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
    delivery = _deliveries(side, user)
    client.command(b"NOOP")
    client.command(b"STORE %d:* +FLAGS.SILENT (\\Deleted)" % (size + 1))
    client.command(b"EXPUNGE")
    client.close()
    return first, noop, idling, again, flags, newest, delivery


def _deliveries(side: Side, user: str) -> float:
    client = Lines(side.ports["lmtp"])
    client.reply(b"220")
    client.ask(b"LHLO bench.example.net\r\n", b"250")
    data = message(5).replace(b"\r\n.", b"\r\n..")

    def deliver() -> None:
        client.ask(b"MAIL FROM:<anna@example.net>\r\n", b"250")
        client.ask(b"RCPT TO:<%b>\r\n" % user.encode(), b"250")
        client.ask(b"DATA\r\n", b"354")
        client.ask(data + b"\r\n.\r\n", b"250")

    spent = _spent(side, DELIVERIES, deliver)
    client.ask(b"QUIT\r\n", b"221")
    client.close()
    return spent


def of_mailboxes(ours: Side, theirs: Side, accounts: Accounts, sizes: dict[str, int]) -> list[Curve]:
    """Curves over the number of messages; `sizes` are those of the accounts."""
    found = {
        size: (_of_mailbox(ours, accounts, user, size), _of_mailbox(theirs, accounts, user, size))
        for user, size in sizes.items()
    }
    return [
        Curve(title, "messages", unit, [(size, mine[at], other[at]) for size, (mine, other) in found.items()])
        for at, (title, unit) in enumerate(OF_MAILBOX)
    ]


def _of_connections(side: Side, accounts: Accounts, count: int, alone: float) -> tuple[float, float]:
    """NOOP beside so many idle TLS connections, and the memory of all of them in MiB."""
    with connected(side, accounts, count):
        time.sleep(2)  # what the logins have begun
        memory = (side.memory() - alone) / 2**20
        client = accounts.imap(side, accounts.k1)
        noop = _spent(side, 1000, lambda: client.command(b"NOOP"))
        client.close()
    return noop, max(memory, 0.01)


def of_connections(ours: Side, theirs: Side, accounts: Accounts, counts: Sequence[int]) -> list[Curve]:
    """Curves over the number of idle connections; a side is measured as far as the memory of the machine reaches."""
    noop: list[tuple[int, float, float | None]] = []
    memory: list[tuple[int, float, float | None]] = []
    alone, room = [], []
    for side in (ours, theirs):
        side.restart()  # what an earlier load has left to a process would be taken for free
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
                print(f"not measured: {error}")  # more than it takes as it is set up here
        noop.append((count, mine[0], other[0]))
        memory.append((count, mine[1], other[1]))
    return [
        Curve("NOOP beside idle connections", "connections", "us", noop),
        Curve("memory of idle connections", "connections", "MiB", memory),
    ]


def of_workers(ours: Ours, theirs: Side, accounts: Accounts, most: int) -> list[Curve]:
    """Curves over the number of workers, of a mixed load that saturates; Dovecot's is the same in each."""
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
    """The points as figures."""
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
            f"-: it would need more than {MEMORY_SHARE:.0%} of this machine's memory, or its server takes no more."
        )
    return Section("Growth", ["what", "of", "ours", "Dovecot"], lines, notes)
