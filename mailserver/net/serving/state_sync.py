"""What the workers of a server tell each other so that limits and penalties hold over all of them.

Counts are told as absolute numbers, those that changed, at most every COUNTS_EVERY seconds; failed logins at once. Each is
the lowest that the number has been in that time, so that it is told again where it has risen and stays: clients who come
and go all the time would else be refused for those who were at two workers one after the other.
Nobody waits for any of it: each worker decides by its own table. A worker that begins is told all; what one that has
ended told is taken back. Losing any of it is harmless to mail.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailserver.auth.exposure.checker import ExposureChecker, ExposureMark
from mailserver.auth.exposure.checker import Key as ExposureKey
from mailserver.auth.throttling.known_networks import KnownNetworks, Row, validate_rows
from mailserver.auth.throttling.penalties import Penalties, PenaltyChange
from mailserver.auth.throttling.verified_passwords import VerifiedChange, VerifiedPasswords
from mailserver.net.connection.connection_limits import ConnectionCounts, Counted
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.server_link import ServerLink

T = TypeVar("T")
COUNTS_EVERY = 0.05
"""Seconds for which changes of counts are gathered."""
COUNTS_AT_ONCE = 5000
PAIRS_AT_ONCE = 500
"""In one message to a worker that begins."""


class ConnectionCountSync:
    """Keeps a worker's `ConnectionCounts` level with those of the others: ["counts", [[what, number], ...]]."""

    def __init__(self, link: ServerLink, clock: IReactorTime, counts: ConnectionCounts) -> None:
        self._link = link
        self._clock = clock
        self._counts = counts
        self._lowest: dict[Counted, int] = {}
        """Of what has changed since it was told."""
        self._sending: IDelayedCall | None = None
        link.on("counts", self._take)
        link.on_joined(self._tell_all)
        link.on_gone(counts.forget)
        counts.on_change = self._note

    def stop(self) -> None:
        """Tell nothing more."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        self._counts.on_change = lambda _counted: None

    def _note(self, counted: Counted) -> None:
        number = self._counts.own(counted)
        self._lowest[counted] = min(number, self._lowest.get(counted, number))
        if self._sending is None:
            self._sending = self._clock.callLater(COUNTS_EVERY, self._tell)

    def _tell(self) -> None:
        self._sending = None
        lowest, self._lowest = self._lowest, {}
        self._link.tell("counts", [[list(counted), number] for counted, number in lowest.items()])
        for counted, number in lowest.items():
            if self._counts.own(counted) != number:
                self._note(counted)

    def _tell_all(self, _worker: int) -> None:
        numbers = self._counts.all_own()
        for start in range(0, len(numbers), COUNTS_AT_ONCE):
            part = numbers[start : start + COUNTS_AT_ONCE]
            self._link.tell("counts", [[list(counted), number] for counted, number in part])

    def _take(self, worker: int, body: Json) -> None:
        numbers = cast("list[tuple[list[str], int]]", body)
        self._counts.take(worker, [(tuple(counted), number) for counted, number in numbers])


class PenaltySync:
    """Has failed logins count in every worker, whichever they were tried at: ["penalties", [news, ...]]."""

    def __init__(self, link: ServerLink, penalties: Penalties) -> None:
        self._link = link
        self._penalties = penalties
        link.on("penalties", self._take)
        link.on_joined(self._tell_all)
        penalties.on_change = self._tell

    def _tell(self, news: PenaltyChange) -> None:
        self._link.tell("penalties", cast("Json", [news]))

    def _tell_all(self, worker: int) -> None:
        if _speaks(self._link, worker):
            for news in _parts(self._penalties.snapshot()):
                self._link.tell("penalties", cast("Json", news))

    def _take(self, _worker: int, body: Json) -> None:
        for news in cast("list[PenaltyChange]", body):
            self._penalties.apply(news)


class VerifiedPasswordSync:
    """Has a password that was found right pass at once in every worker: ["checked", [news, ...]]."""

    def __init__(self, link: ServerLink, checked: VerifiedPasswords) -> None:
        self._link = link
        self._checked = checked
        link.on("checked", self._take)
        link.on_joined(self._tell_all)
        checked.on_change = self._tell

    def _tell(self, news: VerifiedChange) -> None:
        self._link.tell("checked", cast("Json", [news]))

    def _tell_all(self, worker: int) -> None:
        if _speaks(self._link, worker):
            for news in _parts(self._checked.snapshot()):
                self._link.tell("checked", cast("Json", news))

    def _take(self, _worker: int, body: Json) -> None:
        for news in cast("list[VerifiedChange]", body):
            self._checked.apply(news)


class KnownNetworkSync:
    """Has a network that a user has logged in from known in every worker and in the master's file: ["known", [row, ...]].

    A worker that begins has the master's table.
    """

    def __init__(self, link: ServerLink, known: KnownNetworks) -> None:
        self._link = link
        self._known = known
        link.on("known", self._take)
        link.on_known(known.load)
        known.on_change = self._tell

    def _tell(self, rows: list[Row]) -> None:
        told: Json = [list(row) for row in rows]
        self._link.tell("known", told)
        self._link.report_known(told)

    def _take(self, _worker: int, body: Json) -> None:
        self._known.merge(validate_rows(body, PAIRS_AT_ONCE))


class ExposureSync:
    """Has a password that came in clear text checked by one worker, and the master told of a right one.

    ["exposure", key]; of two workers that take one in the same moment the one of the lower worker checks it. To a
    worker that begins, those of the last minute: ["exposures", [key, ...]].
    """

    def __init__(self, link: ServerLink, watch: ExposureChecker) -> None:
        self._link = link
        self._watch = watch
        link.on("exposure", self._take)
        link.on("exposures", self._take_all)
        link.on_joined(self._tell_all)
        watch.on_claim = self._tell
        watch.on_exposed = self._report

    def _tell(self, key: ExposureKey) -> None:
        self._link.tell("exposure", list(key))

    def _tell_all(self, worker: int) -> None:
        if _speaks(self._link, worker):
            for keys in _parts(self._watch.claimed()):
                self._link.tell("exposures", [list(key) for key in keys])

    def _take(self, worker: int, body: Json) -> None:
        key = _exposure_key(body)
        if not self._watch.claim(key) and worker < self._link.number:
            self._watch.drop(key)

    def _take_all(self, _worker: int, body: Json) -> None:
        for each in cast("list[Json]", body):
            self._watch.claim(_exposure_key(each))

    def _report(self, mark: ExposureMark) -> None:
        self._link.report_exposed(cast("Json", mark))


def _exposure_key(told: Json) -> ExposureKey:
    """Raises: ValueError for nonsense."""
    match told:
        case [str(name), str(network), str(digest)]:
            return name, network, digest
        case _:
            raise ValueError("no password that came in clear text")


def _speaks(link: ServerLink, joined: int) -> bool:
    """Does this worker tell the new one? The others know the same."""
    return link.number == min({link.number, *link.poke_send} - {joined})


def _parts(told: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(told), PAIRS_AT_ONCE):
        yield told[start : start + PAIRS_AT_ONCE]
