"""ACME certificates of a running server: when they are ordered, and how the result is served.

The process that reads keys does it. Each order runs in a thread, which waits for a child process. The new certificate is
activated like any other, by `Certificates.offer`. `acme_concurrency` limits the number of orders.
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
from mailserver.net.connection.coroutines import in_thread
from mailserver.net.ipc.message_schema import Json
from mailserver.net.log.events import log
from mailserver.tls.acme import acme_state, renewal_info
from mailserver.tls.acme.acme_concurrency import MOST, URGENT, Group, OrderLimits, group_of
from mailserver.tls.acme.child import AcmeError
from mailserver.tls.acme.order import Obtained, Order
from mailserver.tls.acme.schedule import Attempts, CurrentCertificate, Due, Window, due, plan, should_ask_window
from mailserver.tls.changes.transaction import ChangeRefused
from mailserver.tls.serving.policy import TlsPolicy
from mailserver.tls.state.history import CannotRecord

CHECK_INTERVAL: Final = 3600.0
"""Maximum seconds between two checks for due orders: certificates come from elsewhere too."""
QUIET: Final = 300.0
"""Seconds without new orders after the account could not be changed because some were running; those end meanwhile."""
REASON: Final = "from the ACME authority"

T = TypeVar("T")


class CertificateOrder(Protocol):
    """`order.Order`."""

    def obtain(self) -> Obtained:
        """Blocks. Raises: AcmeError."""

    def close(self) -> None:
        """Forget the order: its certificate was validated."""

    def stop(self) -> None:
        """Stop the order soon."""


class AcmeCertificates:
    """The orders of all hosts that the configuration leaves to the authority."""

    def __init__(
        self,
        reactor: Any,
        *,
        config: Callable[[], Config],
        held: Callable[[], Iterable[CurrentCertificate]],
        offer: Callable[[list[str], bytes, bytes, str], Awaitable[Answer]],
        make_order: Callable[[Config, CurrentCertificate], CertificateOrder] = Order,
        ask_windows: Callable[
            [Config, list[CurrentCertificate], dict[str, Window], int], list[Window]
        ] = renewal_info.windows,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`held` returns what is served now; `offer(hosts, chain, key, reason)` serves something else."""
        self._reactor = reactor
        self._config = config
        self._held = held
        self._offer = offer
        self.first: Callable[[], Awaitable[None]] | None = None
        """Called before anything is ordered: it completes what an earlier process has left."""
        self._make_order = make_order
        self._ask_windows = ask_windows
        self._wall = wall
        self._attempts: dict[str, Attempts] | None = None
        self._windows: dict[str, Window] = {}
        self._starting = False
        self._asking = False
        self._paused = False
        self._quiet_until = 0.0
        self._urgent: set[str] = set()
        self._orders: dict[str, CertificateOrder] = {}
        self._limits = OrderLimits()
        # A pool of its own: orders take minutes, and the reactor's threads are for short calls.
        self._threads = ThreadPool(0, MOST, "acme")
        self._timer: Any = None
        self._stopped = False

    def follow(self) -> None:
        """Take a new configuration, at the start and after a reload."""
        if not self._config().acme_hosts:
            return

        async def start() -> None:
            if self._attempts is None and not self._starting:
                self._starting = True
                self._cancel_timer()
                try:
                    await self._start()
                finally:
                    self._starting = False
            self._start_due()

        self._spawn(start())

    async def _start(self) -> None:
        directory = self._config().server.state_dir
        try:
            attempts = await in_thread(self._reactor, acme_state.all_attempts, directory)
            self._windows = await in_thread(self._reactor, acme_state.all_windows, directory)
        except CannotRecord as error:
            log.error("acme: no certificate can be ordered: {reason}", event="acme-not-possible", reason=str(error))
            if not self._stopped:
                self._timer = self._reactor.callLater(CHECK_INTERVAL, self.follow)
            return
        if self.first is not None:
            await self.first()
        self._attempts = attempts

    def stop(self) -> None:
        """Order nothing more, and stop running orders."""
        self._stopped = True
        self._cancel_timer()
        for order in self._orders.values():
            order.stop()
        if self._threads.started:
            self._threads.stop()

    @contextlib.contextmanager
    def pause(self) -> Iterator[bool]:
        """Start no order meanwhile; yield whether none runs. If one runs, start none for QUIET seconds either."""
        before, self._paused = self._paused, True
        if not before:
            self._quiet_until = self._reactor.seconds() + QUIET if self._orders else 0.0
        try:
            yield not before and not self._orders
        finally:
            self._paused = before
            self._start_due()

    def commands(self) -> dict[str, Command]:
        """Return the control socket's commands, by name."""
        return {"acme-status": self._status, "acme-renew": self._renew}

    def renewals(self) -> list[Json]:
        """Describe each host; times are Unix times."""
        now = int(self._wall())
        rows: list[Json] = []
        for held in self._wanted():
            attempts = self._of(held.host)
            rows.append(
                {
                    "host": held.host,
                    "not_after": held.not_after,
                    "self_signed": held.self_signed,
                    # An order by hand counts as running until it has ended itself, not an earlier one.
                    "running": held.host in self._orders or held.host in self._urgent,
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
            return succeed((False, ["nothing can be ordered: the state directory cannot be used, see the log"]))
        asked = [host] if host else hosts
        self.order_now(asked)
        return succeed((True, [f"{each}: ordered" for each in asked]))

    def order_now(self, hosts: Iterable[str]) -> None:
        """Order certificates for these hosts now, whatever the schedule says."""
        self._urgent |= set(hosts)
        self._start_due()

    # --- The schedule

    def _wanted(self) -> list[CurrentCertificate]:
        hosts = set(self._config().acme_hosts)
        return [held for held in self._held() if held.host in hosts]

    def _of(self, host: str) -> Attempts:
        return (self._attempts or {}).get(host, Attempts(host))

    def _due(self, held: CurrentCertificate, now: int) -> Due:
        if held.host in self._urgent:
            return Due(now, 0, held.host)
        return due(held, self._of(held.host), now, self._windows.get(held.host))

    def _explanation(self, held: CurrentCertificate) -> str:
        window = self._windows.get(held.host)
        return window.explanation if window is not None and window.fingerprint == held.fingerprint else ""

    def _start_due(self) -> None:
        """Start due orders, and set the timer for the next."""
        if self._stopped or self._attempts is None or self._paused:
            return
        now = int(self._wall())
        self._limits.move_slow(self._reactor.seconds())
        planned = self._planned(now)
        quiet = self._quiet_until - self._reactor.seconds()
        while quiet <= 0 and (host := self._next_host(planned, now)) is not None:
            self._start_order(host)
            planned = self._planned(now)
        wanted = self._wanted()
        if any(should_ask_window(held, self._windows.get(held.host), now) for held in wanted) and not self._asking:
            self._asking = True
            self._spawn(self._learn_windows(now))
        times = [each.time for each in planned] + [each.again for each in self._windows.values()]
        later = min((when - now for when in times if when > now), default=CHECK_INTERVAL)
        self._cancel_timer()
        waits = (
            CHECK_INTERVAL,
            later,
            self._limits.until_slow(self._reactor.seconds()),
            quiet if quiet > 0 else CHECK_INTERVAL,
        )
        self._timer = self._reactor.callLater(min(waits), self._start_due)

    def _next_host(self, planned: list[Due], now: int) -> str | None:
        """Return the first due host whose group has a free place."""
        return next(
            (each.host for each in planned if each.time <= now and self._limits.may_start(self._group(each.host))), None
        )

    def _group(self, host: str) -> Group:
        acme = self._config().acme
        assert acme is not None
        return URGENT if host in self._urgent else group_of(acme, host, self._of(host))

    def _start_order(self, host: str) -> None:
        self._limits.start(host, self._group(host), self._reactor.seconds())
        self._urgent.discard(host)
        held = next(each for each in self._wanted() if each.host == host)
        self._orders[host] = self._make_order(self._config(), held)
        self._spawn(self._obtain(host, self._orders[host]))

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _planned(self, now: int) -> list[Due]:
        """Return the schedule of hosts without a running order; those ordered by hand come first."""
        wanted = self._wanted()
        waiting = [held for held in wanted if held.host not in self._orders]
        urgent = [Due(now, 0, held.host) for held in waiting if held.host in self._urgent]
        others = [held for held in waiting if held.host not in self._urgent]
        under_way = [held.domain for held in wanted if held.host in self._orders]
        return urgent + plan(others, self._attempts or {}, now, self._windows, under_way)

    async def _learn_windows(self, now: int) -> None:
        """Ask when certificates should be renewed (RFC 9773)."""
        wanted = self._wanted()
        asked = [held for held in wanted if should_ask_window(held, self._windows.get(held.host), now)][
            : renewal_info.MOST
        ]
        config = self._config()
        try:
            found = await in_thread(self._reactor, self._ask_windows, config, asked, self._windows, now)
            for window in found:
                before = self._windows.get(window.host)
                if window.explanation and (before is None or window.explanation != before.explanation):
                    why = f"the authority explains the renewal at {window.explanation}"
                    log.info("acme: {host}: {reason}", event="acme-renewal-due", host=window.host, reason=why)
            hosts = {held.host for held in wanted}
            self._windows = {host: each for host, each in self._windows.items() if host in hosts}
            self._windows |= {window.host: window for window in found}
            await in_thread(self._reactor, acme_state.save_windows, config.server.state_dir, found)
        except CannotRecord as error:
            log.warn("acme: {reason}", event="acme-renewal-info-failed", reason=str(error))
        finally:
            self._asking = False
        self._start_due()

    async def _obtain(self, host: str, order: CertificateOrder) -> None:
        try:
            log.info("acme: {host}: ordering a certificate", event="acme-order", host=host)
            attempts = await self._attempt(host, order)
        finally:
            del self._orders[host]
            self._limits.end(host)
        if self._stopped or self._attempts is None:
            return
        self._attempts[host] = attempts
        try:
            await in_thread(self._reactor, acme_state.save, self._config().server.state_dir, attempts)
        except CannotRecord as error:
            log.warn("acme: {host}: {reason}", event="acme-order-not-saved", host=host, reason=str(error))
        self._start_due()

    async def _attempt(self, host: str, order: CertificateOrder) -> Attempts:
        """Run an order, serve its certificate, and return the new state."""
        before = self._of(host)
        try:
            found = await self._in_own_thread(order.obtain)
            ok, lines = await self._offer([host], found.chain_pem, found.key_pem.reveal(), REASON)
            await in_thread(self._reactor, order.close)
            error, retry_after = "; ".join(lines), 0
        except AcmeError as refused:
            ok, error, retry_after = False, str(refused), refused.retry_after
        except ChangeRefused as refused:
            # Such as a full disk: the order stays, and its certificate is served later.
            ok, error, retry_after = False, "; ".join(refused.lines), 0
        except Exception as bug:
            log.failure("acme: {host}: the order has failed", event="bug", host=host)
            ok, error, retry_after = False, f"internal error: {type(bug).__name__}", 0
        now = int(self._wall())
        if ok:
            return before.succeeded(now)
        attempts = before.failed(error, now, retry_after)
        if not self._stopped:
            wait = attempts.until - now
            log.error(
                "acme: {host}: order failed, repeated in {seconds} seconds: {reason}",
                event="acme-order-failed",
                host=host,
                seconds=wait,
                reason=attempts.error,
            )
        return attempts

    def _spawn(self, work: Any) -> None:
        Deferred.fromCoroutine(work).addErrback(
            lambda failure: log.failure("acme: work has failed", failure, event="bug")
        )

    def _in_own_thread(self, call: Callable[[], T]) -> Deferred[T]:
        if not self._threads.started:
            self._threads.start()
        return deferToThreadPool(self._reactor, self._threads, call)


def current_certificates(policy: TlsPolicy) -> list[CurrentCertificate]:
    """Describe what each host is served with, for the schedule."""
    return [
        CurrentCertificate(
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
