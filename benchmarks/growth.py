"""How costs grow: with the size of a mailbox, and with the number of connections that are open."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from benchmarks.idle import connected
from benchmarks.report import Section
from benchmarks.scenarios import Accounts
from benchmarks.servers import Side

CONNECTIONS = (10, 30, 100, 300, 1000)


@frozen
class Curve:
    """One cost over one quantity: (quantity, ours, Dovecot's)."""

    title: str
    quantity: str
    unit: str
    points: Sequence[tuple[int, float, float]]


def _spent(side: Side, times: int, work: Callable[[], object]) -> float:
    """Microseconds of server CPU for each of so many."""
    work()
    before = side.cpu()
    for _ in range(times):
        work()
    return (side.cpu() - before) / times * 1e6


def _of_mailbox(side: Side, accounts: Accounts, user: str, size: int) -> tuple[float, float, float, float]:
    """NOOP, SELECT in a new session, the flags of all (a message), the newest 50 with their envelopes."""
    client = accounts.imap(side, user)
    noop = _spent(side, 1000, lambda: client.command(b"NOOP"))
    times = max(1, 200_000 // size)
    flags = _spent(side, times, lambda: client.command(b"FETCH 1:* (UID FLAGS)")) / size
    newest = _spent(side, 30, lambda: client.command(b"FETCH %d:* (UID FLAGS ENVELOPE)" % (size - 49)))
    client.close()

    def select() -> None:
        other.command(b"UNSELECT")
        other.command(b"SELECT INBOX")

    other = accounts.imap(side, user)
    again = _spent(side, 30, select)
    other.close()
    return noop, again, flags, newest


def of_mailboxes(ours: Side, theirs: Side, accounts: Accounts, sizes: dict[str, int]) -> list[Curve]:
    """Curves over the number of messages; `sizes` are those of the accounts."""
    titles = ("NOOP", "SELECT of a known mailbox", "FETCH of flags, a message", "newest 50 with envelopes")
    found = {
        size: (_of_mailbox(ours, accounts, user, size), _of_mailbox(theirs, accounts, user, size))
        for user, size in sizes.items()
    }
    return [
        Curve(title, "messages", "us", [(size, mine[at], other[at]) for size, (mine, other) in found.items()])
        for at, title in enumerate(titles)
    ]


def _of_connections(side: Side, accounts: Accounts, count: int, alone: float) -> tuple[float, float]:
    """NOOP beside so many idle TLS connections, and the memory of all of them in MiB."""
    with connected(side, accounts, count):
        memory = (side.memory() - alone) / 2**20
        client = accounts.imap(side, accounts.k1)
        noop = _spent(side, 1000, lambda: client.command(b"NOOP"))
        client.close()
    return noop, max(memory, 0.01)


def of_connections(ours: Side, theirs: Side, accounts: Accounts) -> list[Curve]:
    """Curves over the number of idle connections."""
    alone = []
    for side in (ours, theirs):
        side.restart()  # what an earlier load has left to a process would be taken for free
        accounts.imap(side, accounts.k1).close()
        alone.append(side.memory())
    found = {
        count: (
            _of_connections(ours, accounts, count, alone[0]),
            _of_connections(theirs, accounts, count, alone[1]),
        )
        for count in CONNECTIONS
    }
    return [
        Curve("NOOP beside idle connections", "connections", "us", [(n, a[0], b[0]) for n, (a, b) in found.items()]),
        Curve("memory of idle connections", "connections", "MiB", [(n, a[1], b[1]) for n, (a, b) in found.items()]),
    ]


def table(curves: Sequence[Curve]) -> Section:
    """The points as figures."""
    lines = [
        [f"{curve.title} ({curve.unit})", f"{at:,} {curve.quantity}", f"{mine:,.2f}", f"{other:,.2f}"]
        for curve in curves
        for at, mine, other in curve.points
    ]
    return Section("Growth", ["what", "of", "ours", "Dovecot"], lines)
