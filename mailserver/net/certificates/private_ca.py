"""Renewal of certificates that a private authority has signed, by a running server that can read the authority's key.

The process that reads keys checks once an hour. A thread reads, signs and writes. `Certificates` activates the result like
any other certificate. A failure is logged once a day, and repeated after growing intervals, like ACME's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from mailserver.config.model import Config
from mailserver.net.admin.control_socket import Answer
from mailserver.net.connection.coroutines import in_thread
from mailserver.net.log.events import log
from mailserver.tls.acme.schedule import Attempts
from mailserver.tls.ca import renewal
from mailserver.tls.ca.private_ca import PrivateCa, open_ca
from mailserver.tls.ca.records import CaFault
from mailserver.tls.ca.renewal import Renewable, ServedChains
from mailserver.tls.keypair.published_ca import LIST
from mailserver.tls.serving.policy import TlsPolicy

CHECK_INTERVAL: Final = 3600.0
"""Seconds between two checks for due renewals."""
LOG_INTERVAL: Final = 24 * 3600
"""Seconds in which the same warning is logged once."""
BY_HAND: Final = "its key has a passphrase: run `mailserver ca renew`"


class CertificateServer(Protocol):
    """The part of `Certificates` that serves renewed certificates."""

    def renew(self, hosts: Sequence[str], chains: Sequence[bytes], reason: str) -> Awaitable[Answer]:
        """Serve hosts without files with new certificates for their keys."""

    def take_files(self, hosts: Sequence[str]) -> Awaitable[Answer]:
        """Load the files of hosts."""


class PrivateCertificates:
    """Renewals of all certificates signed by the authority of `[tls] private_ca`."""

    def __init__(
        self,
        reactor: Any,
        *,
        config: Callable[[], Config],
        served: Callable[[], Mapping[str, ServedChains]],
        serving: CertificateServer,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """`served` returns the chains of each host name."""
        self._reactor = reactor
        self._config = config
        self._served = served
        self._serving = serving
        self._now = now
        self._attempts: dict[str, Attempts] = {}
        self._warned: dict[str, float] = {}
        self._checking: Deferred[None] | None = None
        self._timer = LoopingCall(self._check)
        self._timer.clock = reactor

    def follow(self) -> None:
        """Take a new configuration, at the start and after a reload."""
        if self._timer.running:
            self._timer.stop()
        if self._config().tls.private_ca is not None:
            self._timer.start(CHECK_INTERVAL, now=True)

    def stop(self) -> None:
        """Stop checking."""
        if self._timer.running:
            self._timer.stop()

    def _check(self) -> None:
        if self._checking is None:
            self._checking = Deferred.fromCoroutine(self._check_once())
            self._checking.addErrback(
                lambda failure: log.failure("renewals by the private CA have failed", failure, event="bug")
            )
            self._checking.addBoth(self._checked)

    def _checked(self, _result: object) -> None:
        self._checking = None

    async def _check_once(self) -> None:
        directory = await in_thread(self._reactor, renewal.authority_of, self._config())
        if directory is None:
            return
        now = self._now()
        try:
            found = renewal.renewables(self._config(), self._served())
            ca, due, words = await in_thread(self._reactor, _read, directory, found, now)
        except CaFault as fault:
            self._warn(str(fault))
            return
        for line in filter(None, words):
            self._warn(line)
        for renewable in due:
            if self._timer.running:
                await self._renew(ca, renewable)

    async def _renew(self, ca: PrivateCa, renewable: Renewable | None) -> None:
        name = LIST if renewable is None else ", ".join(renewable.hosts)
        now = self._now()
        before = self._attempts.get(name, Attempts(name))
        if before.tried <= now.timestamp() < before.until:
            return
        ok, lines = True, list[str]()
        try:
            if await in_thread(self._reactor, lambda: ca.is_locked):
                self._warn(f"{name}: is due to be renewed, and {BY_HAND}")
                return
            if renewable is None:
                await in_thread(self._reactor, self._sign_list, ca)
            else:
                ok, lines = await self._certify(ca, renewable)
        except CaFault as fault:
            ok, lines = False, [str(fault)]
        except OSError as error:
            ok, lines = False, [f"{error.filename or 'a file'}: {error.strerror}"]
        if ok:
            self._attempts.pop(name, None)
            log.info("private CA: {name}: renewed", event="private-ca-renewed", name=name)
        else:
            self._attempts[name] = before.failed("; ".join(lines), int(now.timestamp()))
            self._warn(f"{name}: cannot be renewed: {'; '.join(lines)}")

    async def _certify(self, ca: PrivateCa, renewable: Renewable) -> Answer:
        """Sign certificates, and serve them. Raises: CaFault, OSError."""
        renewed = await in_thread(self._reactor, self._sign, ca, renewable)
        if renewable.files:
            await in_thread(self._reactor, renewal.write, renewable, renewed)
            return await self._serving.take_files(renewable.hosts)
        return await self._serving.renew(renewable.hosts, renewed.chains, f"renewed by {ca.name}")

    def _sign(self, ca: PrivateCa, renewable: Renewable) -> Renewable:
        crl_url = self._config().tls.private_ca_crl_url
        return renewal.renew(ca, ca.unlock(None), renewable, self._now(), crl_url=crl_url)

    def _sign_list(self, ca: PrivateCa) -> None:
        renewal.renew_list(ca, ca.unlock(None), self._now())

    def _warn(self, line: str) -> None:
        """Log a warning, the same one once a day."""
        now = self._now().timestamp()
        self._warned = {each: time for each, time in self._warned.items() if 0 <= now - time < LOG_INTERVAL}
        if line not in self._warned:
            self._warned[line] = now
            log.warn("private CA: {reason}", event="private-ca-problem", reason=line)


def served_chains(policy: TlsPolicy) -> dict[str, ServedChains]:
    """Return the chains of each host name."""
    by_host = policy.served.by_host
    return {
        host: ServedChains(each.origin, tuple(pair.chain_pem for pair in each.pairs)) for host, each in by_host.items()
    }


def _read(
    directory: Path, found: Sequence[Renewable], now: dt.datetime
) -> tuple[PrivateCa, list[Renewable | None], tuple[str, ...]]:
    """Read the authority; return it with what is due (None is its revocation list) and the warnings. Runs in a thread.

    Raises: CaFault.
    """
    ca = open_ca(directory)
    ca.require_clock(now)
    due: list[Renewable | None] = [
        each for each in found if any(renewal.is_due(ca, chain, now) for chain in each.chains)
    ]
    words = (renewal.ends_soon(ca.certificate.not_valid_after_utc, now), renewal.users_ending(ca, now))
    return ca, [*due, *([None] if renewal.list_is_due(ca, now) else [])], words
