"""What one's own authority has signed, renewed by a running server where it can read the authority's key.

One process leads, the one where keys are read. It looks once an hour; reading, signing and writing are done in a thread,
and what was signed goes the way of every certificate, by `Certificates`. What fails is told once a day, and tried again as
ACME's failures are: later each time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from mailserver.config.model import Config
from mailserver.net.admin.control_socket import Answer
from mailserver.net.log.events import log
from mailserver.tls.acme.schedule import Attempts
from mailserver.tls.ca import renewal
from mailserver.tls.ca.private_ca import PrivateCa, open_ca
from mailserver.tls.ca.records import CaFault
from mailserver.tls.ca.renewal import Renewable, Served
from mailserver.tls.keypair.published_ca import LIST
from mailserver.tls.serving.policy import TlsPolicy

LOOK: Final = 3600.0
"""Seconds between two looks at what is due."""
TOLD: Final = 24 * 3600
"""Seconds in which the same is said once."""
BY_HAND: Final = "its key has a passphrase: run `mailserver ca renew`"

T = TypeVar("T")


class Serving(Protocol):
    """`Certificates`: what was renewed, to be served."""

    def renew(self, hosts: Sequence[str], chains: Sequence[bytes], reason: str) -> Awaitable[Answer]:
        """Serve hosts that have no files with other certificates of their keys."""

    def take_files(self, hosts: Sequence[str]) -> Awaitable[Answer]:
        """Take up the files of hosts."""


class PrivateCertificates:
    """Renewals of all that the authority of `[tls] private_ca` has signed."""

    def __init__(
        self,
        reactor: Any,
        *,
        config: Callable[[], Config],
        served: Callable[[], Mapping[str, Served]],
        serving: Serving,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """`served`: what each host name is served under now."""
        self._reactor = reactor
        self._config = config
        self._served = served
        self._serving = serving
        self._now = now
        self._attempts: dict[str, Attempts] = {}
        self._told: dict[str, float] = {}
        self._looking: Deferred[None] | None = None
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor

    def follow(self) -> None:
        """The configuration is new: at the start, and after a reload."""
        if self._looks.running:
            self._looks.stop()
        if self._config().tls.private_ca is not None:
            self._looks.start(LOOK, now=True)

    def stop(self) -> None:
        """Look no more."""
        if self._looks.running:
            self._looks.stop()

    def _look(self) -> None:
        if self._looking is None:
            self._looking = Deferred.fromCoroutine(self._look_once())
            self._looking.addErrback(lambda failure: log.failure("the private authority", failure))
            self._looking.addBoth(self._looked)

    def _looked(self, _result: object) -> None:
        self._looking = None

    async def _look_once(self) -> None:
        directory = await self._in_thread(renewal.authority_of, self._config())
        if directory is None:
            return
        now = self._now()
        try:
            found = renewal.renewables(self._config(), self._served())
            one, due, words = await self._in_thread(_read, directory, found, now)
        except CaFault as fault:
            self._warn(str(fault))
            return
        for line in filter(None, words):
            self._warn(line)
        for what in due:
            if self._looks.running:
                await self._renew(one, what)

    async def _renew(self, one: PrivateCa, what: Renewable | None) -> None:
        name = LIST if what is None else ", ".join(what.hosts)
        now = self._now()
        before = self._attempts.get(name, Attempts(name))
        if before.tried <= now.timestamp() < before.until:
            return
        ok, lines = True, list[str]()
        try:
            if await self._in_thread(lambda: one.is_locked):
                self._warn(f"{name}: is due to be renewed, and {BY_HAND}")
                return
            if what is None:
                await self._in_thread(self._sign_list, one)
            else:
                ok, lines = await self._certify(one, what)
        except CaFault as fault:
            ok, lines = False, [str(fault)]
        except OSError as error:
            ok, lines = False, [f"{error.filename or 'a file'}: {error.strerror}"]
        if ok:
            self._attempts.pop(name, None)
            log.info("{line}", line=f"private CA: {name}: renewed")
        else:
            self._attempts[name] = before.failed("; ".join(lines), int(now.timestamp()))
            self._warn(f"{name}: cannot be renewed: {'; '.join(lines)}")

    async def _certify(self, one: PrivateCa, what: Renewable) -> Answer:
        """Sign, and serve what was signed. Raises: CaFault, OSError."""
        renewed = await self._in_thread(self._sign, one, what)
        if what.files:
            await self._in_thread(renewal.write, what, renewed)
            return await self._serving.take_files(what.hosts)
        return await self._serving.renew(what.hosts, renewed.chains, f"renewed by {one.name}")

    def _sign(self, one: PrivateCa, what: Renewable) -> Renewable:
        crl_url = self._config().tls.private_ca_crl_url
        return renewal.renew(one, one.unlock(None), what, self._now(), crl_url=crl_url)

    def _sign_list(self, one: PrivateCa) -> None:
        renewal.renew_list(one, one.unlock(None), self._now())

    def _warn(self, line: str) -> None:
        """The same is told once a day."""
        now = self._now().timestamp()
        self._told = {each: told for each, told in self._told.items() if 0 <= now - told < TOLD}
        if line not in self._told:
            self._told[line] = now
            log.warn("{line}", line=f"private CA: {line}")

    def _in_thread(self, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *arguments)


def served(policy: TlsPolicy) -> dict[str, Served]:
    """What each host name is served under."""
    by_host = policy.served.by_host
    return {host: Served(each.origin, tuple(pair.chain_pem for pair in each.pairs)) for host, each in by_host.items()}


def _read(
    directory: Path, found: Sequence[Renewable], now: dt.datetime
) -> tuple[PrivateCa, list[Renewable | None], tuple[str, ...]]:
    """In a thread: the authority; what is due, None being its revocation list; what is to be told. Raises: CaFault."""
    one = open_ca(directory)
    one.expect_begun(now)
    due: list[Renewable | None] = [
        each for each in found if any(renewal.is_due(one, chain, now) for chain in each.chains)
    ]
    words = (renewal.ends_soon(one.certificate.not_valid_after_utc, now), renewal.users_ending(one, now))
    return one, [*due, *([None] if renewal.list_is_due(one, now) else [])], words
