"""The row of a destination: when its next recipient is due, and whether it can be reached."""

from __future__ import annotations

import apsw
from attrs import evolve

from mailserver.queue import schedule, statements
from mailserver.queue.model import Hop, Settings


def refresh(connection: apsw.Connection, destination: str) -> None:
    """Make the row follow the recipients, within the caller's transaction."""
    _store(connection, hop_of(connection, destination))


def reached(connection: apsw.Connection, destination: str) -> None:
    """Record that it has answered."""
    _store(connection, Hop(destination, 0, 0, ""))


def contact_now(connection: apsw.Connection, destination: str) -> None:
    """Let it be contacted at once. Its failures are remembered, so that the next one means a wait as long as before."""
    hop = hop_of(connection, destination)
    _store(connection, evolve(hop, until=0))


def failed(connection: apsw.Connection, destination: str, reply: str, settings: Settings, now: int) -> None:
    """Record that it cannot be reached. Connections that fail side by side count once."""
    hop = hop_of(connection, destination)
    if hop.until <= now:
        failures = hop.failures + 1
        hop = Hop(destination, schedule.next_contact(settings, now, failures), failures, reply)
    _store(connection, hop)


def hop_of(connection: apsw.Connection, destination: str) -> Hop:
    """Return its state; no failures if there is no row."""
    match connection.execute(statements.HOP, {"destination": destination}).fetchall():
        case [(int(until), int(failures), str(reply))]:
            return Hop(destination, until, failures, reply)
    return Hop(destination, 0, 0, "")


def _store(connection: apsw.Connection, hop: Hop) -> None:
    due = connection.execute(statements.FIRST_DUE, {"destination": hop.destination}).get
    if due is None and not hop.failures:
        connection.execute(statements.REMOVE_HOP, {"destination": hop.destination})
        return
    values = {"destination": hop.destination, "due": due, "until": hop.until}
    connection.execute(statements.SET_HOP, values | {"failures": hop.failures, "reply": hop.reply})
