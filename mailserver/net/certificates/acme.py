"""Certificates of an ACME authority in a running server: who asks for them, when, and what becomes of them.

One process leads, the one where keys are read. Each order runs in a thread, which waits for a child process; what comes
back goes the way of every certificate, `Certificates.offer`. `acme_lanes` says how many run at once, so that those that hang
hold up no others, and few processes are there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mailserver.config.model import Config
from mailserver.net.admin.control_socket import Answer, Arguments, BadRequest, Command, DataAnswer
from mailserver.net.ipc.message_schema import Json
from mailserver.net.log.events import log
from mailserver.tls.acme import acme_state, renewal_info
from mailserver.tls.acme.acme_concurrency import HURRIED, MOST, Lane, Lanes, lane_of
from mailserver.tls.acme.child import NotObtained
from mailserver.tls.acme.order import Obtained, Order
from mailserver.tls.acme.schedule import Attempts, Due, Held, Window, asks, due, plan
from mailserver.tls.changes.transaction import Refused
from mailserver.tls.serving.policy import TlsPolicy
from mailserver.tls.state.history import CannotRecord

LOOK: Final = 3600.0
"""Seconds between two looks at what is due, at most: certificates come from elsewhere too."""
QUIET: Final = 300.0
"""Seconds in which no order begins after the account could not be changed because some ran; those end meanwhile."""
REASON: Final = "from the ACME authority"

T = TypeVar("T")


class Ordering(Protocol):
    """`acme_order.Order`."""

    def obtain(self) -> Obtained:
        """Blocks. Raises: NotObtained."""

    def close(self) -> None:
        """What it has obtained was judged."""

    def stop(self) -> None:
        """Have it end soon."""


class AcmeCertificates:
    """Of all hosts that the configuration gives to the authority."""

    def __init__(
        self,
        reactor: Any,
        *,
        config: Callable[[], Config],
        held: Callable[[], Iterable[Held]],
        offer: Callable[[list[str], bytes, bytes, str], Awaitable[Answer]],
        make_order: Callable[[Config, Held], Ordering] = Order,
        ask_windows: Callable[[Config, list[Held], dict[str, Window], int], list[Window]] = renewal_info.windows,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`held`: what is served now; `offer(hosts, chain, key, reason)`: serve something else."""
        self._reactor = reactor
        self._config = config
        self._held = held
        self._offer = offer
        self.first: Callable[[], Awaitable[None]] | None = None
        """What is to be done before anything is asked for: bringing to its end what an earlier process has left."""
        self._make_order = make_order
        self._ask_windows = ask_windows
        self._wall = wall
        self._attempts: dict[str, Attempts] | None = None
        self._windows: dict[str, Window] = {}
        self._beginning = False
        self._asking = False
        self._held_up = False
        self._quiet_until = 0.0
        self._hurried: set[str] = set()
        self._orders: dict[str, Ordering] = {}
        self._lanes = Lanes()
        # Its own: orders take minutes, and the reactor's threads are for what is done in a moment.
        self._threads = ThreadPool(0, MOST, "acme")
        self._next: Any = None
        self._stopped = False

    def follow(self) -> None:
        """The configuration is new: at the start, and after a reload."""
        if not self._config().acme_hosts:
            return

        async def begin() -> None:
            if self._attempts is None and not self._beginning:
                self._beginning = True
                self._wait_no_more()
                try:
                    await self._begin()
                finally:
                    self._beginning = False
            self._look()

        self._spawn(begin())

    async def _begin(self) -> None:
        directory = self._config().server.state_dir
        try:
            attempts = await self._in_thread(acme_state.all_attempts, directory)
            self._windows = await self._in_thread(acme_state.all_windows, directory)
        except CannotRecord as error:
            log.error("{line}", line=f"acme: nothing can be asked for: {error}")
            if not self._stopped:
                self._next = self._reactor.callLater(LOOK, self.follow)
            return
        if self.first is not None:
            await self.first()
        self._attempts = attempts

    def stop(self) -> None:
        """Ask for nothing more, and end what is under way."""
        self._stopped = True
        self._wait_no_more()
        for order in self._orders.values():
            order.stop()
        if self._threads.started:
            self._threads.stop()

    @contextlib.contextmanager
    def held_up(self) -> Iterator[bool]:
        """Begin no order meanwhile; True if none runs. Else none begins for QUIET seconds, so that it may be had then."""
        before, self._held_up = self._held_up, True
        if not before:
            self._quiet_until = self._reactor.seconds() + QUIET if self._orders else 0.0
        try:
            yield not before and not self._orders
        finally:
            self._held_up = before
            self._look()

    def commands(self) -> dict[str, Command]:
        """For the control socket, by name."""
        return {"acme-status": self._status, "acme-renew": self._renew}

    def renewals(self) -> list[Json]:
        """A row for each host; times are Unix times."""
        now = int(self._wall())
        rows: list[Json] = []
        for held in self._wanted():
            attempts = self._of(held.host)
            rows.append(
                {
                    "host": held.host,
                    "not_after": held.not_after,
                    "self_signed": held.self_signed,
                    # What was asked for by hand is under way until that order has ended, not one that ran before.
                    "running": held.host in self._orders or held.host in self._hurried,
                    "next": max(now, self._due(held, now).time),
                    "tried": attempts.tried,
                    "failures": attempts.failures,
                    "error": attempts.error,
                    "explanation": self._explanation(held),
                }
            )
        return rows

    # --- Commands

    def _status(self, arguments: Arguments) -> Deferred[DataAnswer]:
        if arguments:
            raise BadRequest("takes nothing")
        return succeed(DataAnswer(self.renewals()))

    def _renew(self, arguments: Arguments) -> Deferred[Answer]:
        """{"host": name, or "" for all}."""
        host = arguments.get("host")
        if set(arguments) != {"host"} or not isinstance(host, str):
            raise BadRequest("takes a text: host")
        hosts = [held.host for held in self._wanted()]
        if host and host not in hosts:
            known = ", ".join(hosts) or "none"
            return succeed((False, [f"{host}: is no host of a [[domain]] with acme = true; there are {known}"]))
        if not hosts:
            return succeed((False, ["no [[domain]] has acme = true"]))
        if self._attempts is None:
            return succeed((False, ["nothing can be asked for: the state directory cannot be used, see the log"]))
        asked = [host] if host else hosts
        self.hurry(asked)
        return succeed((True, [f"{each}: is asked for" for each in asked]))

    def hurry(self, hosts: Iterable[str]) -> None:
        """Ask for these now, whatever the plan says."""
        self._hurried |= set(hosts)
        self._look()

    # --- The plan

    def _wanted(self) -> list[Held]:
        hosts = set(self._config().acme_hosts)
        return [held for held in self._held() if held.host in hosts]

    def _of(self, host: str) -> Attempts:
        return (self._attempts or {}).get(host, Attempts(host))

    def _due(self, held: Held, now: int) -> Due:
        if held.host in self._hurried:
            return Due(now, 0, held.host)
        return due(held, self._of(held.host), now, self._windows.get(held.host))

    def _explanation(self, held: Held) -> str:
        window = self._windows.get(held.host)
        return window.explanation if window is not None and window.fingerprint == held.fingerprint else ""

    def _look(self) -> None:
        """Begin what is due, and come back when the next is."""
        if self._stopped or self._attempts is None or self._held_up:
            return
        now = int(self._wall())
        self._lanes.make_way(self._reactor.seconds())
        planned = self._planned(now)
        quiet = self._quiet_until - self._reactor.seconds()
        while quiet <= 0 and (host := self._next_host(planned, now)) is not None:
            self._begin_order(host)
            planned = self._planned(now)
        wanted = self._wanted()
        if any(asks(held, self._windows.get(held.host), now) for held in wanted) and not self._asking:
            self._asking = True
            self._spawn(self._learn_windows(now))
        times = [each.time for each in planned] + [each.again for each in self._windows.values()]
        later = min((when - now for when in times if when > now), default=LOOK)
        self._wait_no_more()
        waits = (LOOK, later, self._lanes.until_way(self._reactor.seconds()), quiet if quiet > 0 else LOOK)
        self._next = self._reactor.callLater(min(waits), self._look)

    def _next_host(self, planned: list[Due], now: int) -> str | None:
        """The first that is due and finds a place."""
        return next(
            (each.host for each in planned if each.time <= now and self._lanes.has_place(self._lane(each.host))), None
        )

    def _lane(self, host: str) -> Lane:
        acme = self._config().acme
        assert acme is not None
        return HURRIED if host in self._hurried else lane_of(acme, host, self._of(host))

    def _begin_order(self, host: str) -> None:
        self._lanes.enter(host, self._lane(host), self._reactor.seconds())
        self._hurried.discard(host)
        held = next(each for each in self._wanted() if each.host == host)
        self._orders[host] = self._make_order(self._config(), held)
        self._spawn(self._obtain(host, self._orders[host]))

    def _wait_no_more(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _planned(self, now: int) -> list[Due]:
        """Of all for which no order runs; what the administrator wants comes first."""
        wanted = self._wanted()
        waiting = [held for held in wanted if held.host not in self._orders]
        hurried = [Due(now, 0, held.host) for held in waiting if held.host in self._hurried]
        others = [held for held in waiting if held.host not in self._hurried]
        under_way = [held.domain for held in wanted if held.host in self._orders]
        return hurried + plan(others, self._attempts or {}, now, self._windows, under_way)

    async def _learn_windows(self, now: int) -> None:
        """When the authority would have certificates renewed (RFC 9773)."""
        wanted = self._wanted()
        asked = [held for held in wanted if asks(held, self._windows.get(held.host), now)][: renewal_info.MOST]
        config = self._config()
        try:
            found = await self._in_thread(self._ask_windows, config, asked, self._windows, now)
            for window in found:
                before = self._windows.get(window.host)
                if window.explanation and (before is None or window.explanation != before.explanation):
                    why = f"the authority says of its renewal: {window.explanation}"
                    log.info("{line}", line=f"acme: {window.host}: {why}")
            hosts = {held.host for held in wanted}
            self._windows = {host: each for host, each in self._windows.items() if host in hosts}
            self._windows |= {window.host: window for window in found}
            await self._in_thread(acme_state.save_windows, config.server.state_dir, found)
        except CannotRecord as error:
            log.warn("{line}", line=f"acme: {error}")
        finally:
            self._asking = False
        self._look()

    async def _obtain(self, host: str, order: Ordering) -> None:
        try:
            log.info("{line}", line=f"acme: {host}: asking for a certificate")
            attempts = await self._attempt(host, order)
        finally:
            del self._orders[host]
            self._lanes.leave(host)
        if self._stopped or self._attempts is None:
            return
        self._attempts[host] = attempts
        try:
            await self._in_thread(acme_state.save, self._config().server.state_dir, attempts)
        except CannotRecord as error:
            log.warn("{line}", line=f"acme: {host}: {error}")
        self._look()

    async def _attempt(self, host: str, order: Ordering) -> Attempts:
        """What came of it."""
        before = self._of(host)
        try:
            found = await self._in_own_thread(order.obtain)
            ok, lines = await self._offer([host], found.chain_pem, found.key_pem.reveal(), REASON)
            await self._in_thread(order.close)
            error, retry_after = "; ".join(lines), 0
        except NotObtained as refused:
            ok, error, retry_after = False, str(refused), refused.retry_after
        except Refused as refused:
            # The disk is full, say: the order stays, and its certificate is taken once there is room.
            ok, error, retry_after = False, "; ".join(refused.lines), 0
        except Exception as bug:
            log.failure("acme: {host}", host=host)
            ok, error, retry_after = False, f"internal error: {type(bug).__name__}", 0
        now = int(self._wall())
        if ok:
            return before.succeeded(now)
        attempts = before.failed(error, now, retry_after)
        if not self._stopped:
            wait = attempts.until - now
            log.error("{line}", line=f"acme: {host}: no certificate, tried again in {wait} seconds: {attempts.error}")
        return attempts

    def _spawn(self, work: Any) -> None:
        Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("acme", failure))

    def _in_own_thread(self, call: Callable[[], T]) -> Deferred[T]:
        if not self._threads.started:
            self._threads.start()
        return deferToThreadPool(self._reactor, self._threads, call)

    def _in_thread(self, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *arguments)


def held(policy: TlsPolicy) -> list[Held]:
    """What is served for each host, as the plan for renewals sees it."""
    return [
        Held(
            host,
            int(each.pair.not_before.timestamp()),
            int(each.pair.not_after.timestamp()),
            each.origin == "self-signed",
            each.pair.fingerprint,
            each.pair.chain_pem if each.origin == "acme" else b"",
            each.domain,
        )
        for host, each in policy.served.by_host.items()
    ]
