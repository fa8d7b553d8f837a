"""Share the state of limits and penalties between workers, so that both hold over all of them.

Each worker decides by its own table and waits for nobody. Connection counts are sent as absolute numbers, those that
changed, at most every COUNTS_EVERY seconds; failed logins are sent at once. A count is sent as the lowest number of that
time, and again if it is higher and stays: otherwise clients that connect and disconnect all the time would be refused
for connections that they had at two workers one after the other.

A worker that begins receives all of the state; the counts of a worker that has ended are removed. Any message may be
lost without harm to mail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailserver.auth.exposure.checker import ExposureChecker, ExposureMark
from mailserver.auth.exposure.checker import Key as ExposureKey
from mailserver.auth.throttling.banned_clients import BannedClients
from mailserver.auth.throttling.guess_counts import Guess
from mailserver.auth.throttling.known_networks import KnownNetworks, Row, validate_rows
from mailserver.auth.throttling.penalties import Penalties, PenaltyChange
from mailserver.auth.throttling.verified_passwords import VerifiedChange, VerifiedPasswords
from mailserver.net.connection.connection_limits import ConnectionCounts, CountKey
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.ipc.worker_messages import (
    MAX_NAME,
    ConnectionCountsChanged,
    ExposuresTaken,
    ExposureTaken,
    GuessMade,
    NetworksKnown,
    PasswordExposed,
    PasswordsVerified,
    PenaltiesChanged,
)

T = TypeVar("T")
COUNTS_EVERY = 0.05
"""Seconds for which changes of counts are gathered."""
ROWS_AT_ONCE = 500
"""In one message."""


class ConnectionCountSync:
    """Synchronize a worker's `ConnectionCounts` with those of the other workers."""

    def __init__(self, link: ServerLink, clock: IReactorTime, counts: ConnectionCounts) -> None:
        self._link = link
        self._clock = clock
        self._counts = counts
        self._lowest: dict[CountKey, int] = {}
        """The lowest number of each count that has changed since the last message."""
        self._timer: IDelayedCall | None = None
        link.on_broadcast(ConnectionCountsChanged, self._receive)
        link.on_joined(self._send_all)
        link.on_gone(counts.remove_worker)
        counts.on_change = self._note

    def stop(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._counts.on_change = lambda _counted: None

    def _note(self, counted: CountKey) -> None:
        number = self._counts.own(counted)
        self._lowest[counted] = min(number, self._lowest.get(counted, number))
        if self._timer is None:
            self._timer = self._clock.callLater(COUNTS_EVERY, self._send)

    def _send(self) -> None:
        self._timer = None
        lowest, self._lowest = self._lowest, {}
        for counts in _slices(list(lowest.items())):
            self._link.broadcast(ConnectionCountsChanged(counts))
        for counted, number in lowest.items():
            if self._counts.own(counted) != number:
                self._note(counted)

    def _send_all(self, _joined: int) -> None:
        for counts in _slices(self._counts.all_own()):
            self._link.broadcast(ConnectionCountsChanged(counts))

    def _receive(self, worker: int, message: ConnectionCountsChanged) -> None:
        self._counts.update_worker(worker, message.counts)


class PenaltySync:
    """Count a failed login in every worker, whichever of them took it."""

    def __init__(self, link: ServerLink, penalties: Penalties) -> None:
        self._link = link
        self._penalties = penalties
        link.on_broadcast(PenaltiesChanged, self._receive)
        link.on_joined(self._send_all)
        penalties.on_change = self._send

    def _send(self, change: PenaltyChange) -> None:
        self._link.broadcast(PenaltiesChanged((change,)))

    def _send_all(self, joined: int) -> None:
        if _is_sender(self._link, joined):
            for news in _slices(self._penalties.snapshot()):
                self._link.broadcast(PenaltiesChanged(news))

    def _receive(self, _worker: int, message: PenaltiesChanged) -> None:
        for news in message.news:
            self._penalties.apply(news)


class VerifiedPasswordSync:
    """Accept a password in every worker without hashing once it was right in one of them."""

    def __init__(self, link: ServerLink, checked: VerifiedPasswords) -> None:
        self._link = link
        self._checked = checked
        link.on_broadcast(PasswordsVerified, self._receive)
        link.on_joined(self._send_all)
        checked.on_change = self._send

    def _send(self, change: VerifiedChange) -> None:
        self._link.broadcast(PasswordsVerified((cast("tuple[str, str, float]", change),)))

    def _send_all(self, joined: int) -> None:
        if _is_sender(self._link, joined):
            for news in _slices(self._checked.snapshot()):
                self._link.broadcast(PasswordsVerified(cast("tuple[tuple[str, str, float], ...]", news)))

    def _receive(self, _worker: int, message: PasswordsVerified) -> None:
        for news in message.news:
            self._checked.apply(list(news))


class KnownNetworkSync:
    """Make a network that a user has logged in from known in every worker and in the master's file.

    A worker that begins loads the master's table.
    """

    def __init__(self, link: ServerLink, known: KnownNetworks) -> None:
        self._link = link
        self._known = known
        link.on_broadcast(NetworksKnown, self._receive)
        link.on_known_networks(known.load)
        known.on_change = self._send

    def _send(self, rows: list[Row]) -> None:
        message = NetworksKnown(tuple(rows))
        self._link.broadcast(message)
        self._link.report(message)

    def _receive(self, _worker: int, message: NetworksKnown) -> None:
        self._known.merge(validate_rows(list(message.rows), ROWS_AT_ONCE))


class BanSync:
    """Refuse the clients that the master has banned, and report guesses to it."""

    def __init__(self, link: ServerLink, banned: BannedClients) -> None:
        self._link = link
        link.on_bans(banned.apply)

    def report(self, guess: Guess) -> None:
        """Report a guess to the master."""
        self._link.report(
            GuessMade(
                guess.peer,
                guess.name[:MAX_NAME],
                guess.shown[:MAX_NAME],
                guess.digest,
                guess.protocol,
                guess.id,
                guess.is_proof,
            )
        )


class ExposureSync:
    """Have a password that came in clear text checked by one worker, and report a right one to the master.

    If two workers take the same password at the same moment, the one with the lower number checks it. A worker that
    begins receives those of the last minute.
    """

    def __init__(self, link: ServerLink, watch: ExposureChecker) -> None:
        self._link = link
        self._watch = watch
        link.on_broadcast(ExposureTaken, self._receive)
        link.on_broadcast(ExposuresTaken, self._receive_all)
        link.on_joined(self._send_all)
        watch.on_claim = self._send
        watch.on_exposed = self._report

    def _send(self, key: ExposureKey) -> None:
        self._link.broadcast(ExposureTaken(key))

    def _send_all(self, joined: int) -> None:
        if _is_sender(self._link, joined):
            for keys in _slices(self._watch.claimed()):
                self._link.broadcast(ExposuresTaken(keys))

    def _receive(self, worker: int, message: ExposureTaken) -> None:
        if not self._watch.claim(message.key) and worker < self._link.number:
            self._watch.drop(message.key)

    def _receive_all(self, _worker: int, message: ExposuresTaken) -> None:
        for key in message.keys:
            self._watch.claim(key)

    def _report(self, mark: ExposureMark) -> None:
        self._link.report(PasswordExposed(mark))


def _is_sender(link: ServerLink, joined: int) -> bool:
    """Return whether this worker sends its state to the new one: the others have the same state."""
    return link.number == min({link.number, *link.poke_send} - {joined})


def _slices(rows: list[T]) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield tuple(rows[start : start + ROWS_AT_ONCE])
