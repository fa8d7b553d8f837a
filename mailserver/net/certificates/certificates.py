"""Certificates of a running server: activation from files and commands, trials, and expiry warnings.

`tls.changes` validates and records a change in a thread. Then all processes serve it; existing connections are not affected.
Then this process connects to the listeners like a client, and takes back what they do not show.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from mailserver.config.model import Config
from mailserver.net.admin.control_socket import Answer, Arguments, BadRequest, Command, DataAnswer
from mailserver.net.certificates.certificate_files import CertificateFiles, Hosts
from mailserver.net.connection.coroutines import in_thread
from mailserver.net.log.events import log
from mailserver.tls.changes import trial
from mailserver.tls.changes.activation import Activation
from mailserver.tls.changes.listing import certificate_rows, history_rows
from mailserver.tls.changes.transaction import ChangeRefused, RecordedChange, Transaction
from mailserver.tls.context.context_map import Origin
from mailserver.tls.keypair.files import watched_files
from mailserver.tls.keypair.pair import Pair
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.tls.state.expiry import Expiry
from mailserver.tls.state.history import CannotRecord

EXPIRY_INTERVAL: Final = 3600.0
"""Seconds between two checks for certificates that end soon."""
CONFIRMATION: Final = 2.0
"""Seconds after which listeners that do not show a certificate are tried once more."""
CHANGES: Final = frozenset(
    {"cert-add", "cert-activate", "cert-rollback", "acme-renew", "acme-account", "acme-rollover", "acme-revoke"}
)
"""Commands that need the right to read keys."""


class Certificates:
    """The certificates of a server, in the process that reads keys: the master, or the only process."""

    def __init__(
        self,
        reactor: Any,
        policy: TlsPolicy,
        activation: Activation,
        *,
        config: Callable[[], Config],
        serve: Callable[[Prepared], Deferred[list[str]]],
        one_at_a_time: Callable[..., Deferred[Any]],
    ) -> None:
        """`serve` makes all processes serve a change; `one_at_a_time(call)` excludes reloads meanwhile."""
        self._reactor = reactor
        self._policy = policy
        self._activation = activation
        self._config = config
        self._serve = serve
        self._one_at_a_time = one_at_a_time
        self._refused: set[str] = set()
        """Hosts whose files were reported as refused."""
        self._files = CertificateFiles(reactor, activation.seen, self._take_files)
        self._expiry = Expiry(activation.history)
        self._expiry_check = LoopingCall(self._check_expiry)
        self._expiry_check.clock = reactor

    def start(self) -> None:
        """Watch the files and the dates."""
        self._note_refused()
        self.follow()
        self._expiry_check.start(EXPIRY_INTERVAL, now=True)

    def stop(self) -> None:
        """Stop watching."""
        self._files.stop()
        if self._expiry_check.running:
            self._expiry_check.stop()

    def follow(self) -> None:
        """Take a new configuration."""
        config = self._config()
        if config.tls.follow_files:
            self._files.follow(watched_files(config))
        else:
            self._files.stop()

    async def reloaded(self, *, whole: bool) -> list[str]:
        """Record what a reload has activated; return what prevented that."""
        if not whole:
            # A refused reload may have read files without activating them: they count as changed.
            self._activation.seen.clear()
        tls, history = self._config().tls, self._activation.history
        history.keep, history.keep_days = tls.history, tls.history_days
        try:
            await in_thread(self._reactor, self._activation.record, self._policy.served, "reload")
        except CannotRecord as error:
            return [str(error)]
        finally:
            self._note_refused()
            self.follow()
        return []

    def commands(self) -> dict[str, Command]:
        """Return the control socket's commands, by name."""
        return {
            "cert-add": self._add,
            "cert-activate": self._activate,
            "cert-rollback": self._roll_back,
            "cert-list": self._list,
            "cert-history": self._history,
        }

    def offer(
        self, hosts: Sequence[str], chain_pem: bytes, key_pem: bytes, reason: str, origin: Origin = "acme"
    ) -> Deferred[Answer]:
        """Serve hosts without files with another pair.

        Return success and the result for each host. Fails: ChangeRefused if the same may succeed later.
        """
        return self._change(lambda one: one.offer(hosts, chain_pem, key_pem, reason=reason, origin=origin), later=True)

    def recorded(self, host: str, number: int | None) -> Deferred[tuple[Pair, bool]]:
        """Return a recorded pair of a host, or its current one, and whether it is served. Fails: ChangeRefused, CannotRecord."""
        history = self._activation.history

        def find() -> tuple[Pair, bool]:
            entry = history.current(host) if number is None else history.entry(host, number)
            if entry is None:
                raise ChangeRefused([f"{host}: has no such activation; `mailserver cert history` lists them"])
            serving = self._policy.served.by_host.get(host)
            return history.pair(entry.digest), serving is not None and serving.pair.digest == entry.digest

        return self._one_at_a_time(in_thread, self._reactor, find)

    def revoked(self, fingerprint: str) -> Deferred[None]:
        """Record that an authority revoked a certificate, so that no rollback restores it. Fails: CannotRecord."""

        def note() -> None:
            with self._activation.history.transaction():
                self._activation.history.revoke(fingerprint)

        return self._one_at_a_time(in_thread, self._reactor, note)

    def renew(self, hosts: Sequence[str], chains: Sequence[bytes], reason: str) -> Deferred[Answer]:
        """The same as `offer` with new certificates for the one or two present keys."""
        second = (chains[1], b"") if len(chains) > 1 else None
        return self._change(lambda one: one.offer(hosts, chains[0], b"", second=second, reason=reason, origin="added"))

    def take_files(self, hosts: Sequence[str]) -> Deferred[Answer]:
        """Load the files of hosts, which were just written."""
        return self._change(lambda one: one.take_files(hosts))

    # --- Commands

    def _add(self, arguments: Arguments) -> Deferred[Answer]:
        """{"hosts": names with spaces between, or none, "chain": PEM, "key": PEM, "reason": text}.

        "second_chain" and "second_key" hold a pair beside it, or are both "".
        """
        texts = _texts(arguments, "hosts", "chain", "key", "second_chain", "second_key", "reason")
        hosts, chain, key = texts["hosts"].split(), texts["chain"].encode(), texts["key"].encode()
        second = (texts["second_chain"].encode(), texts["second_key"].encode())
        return self._change(
            lambda one: one.offer(
                hosts, chain, key, second=second if any(second) else None, reason=texts["reason"], origin="added"
            )
        )

    def _activate(self, arguments: Arguments) -> Deferred[Answer]:
        """{"host": name, "id": number of an activation, or "file"}."""
        texts = _texts(arguments, "host", "id")
        number = int(texts["id"]) if texts["id"].isdecimal() and len(texts["id"]) < 18 else None
        if number is None and texts["id"] != "file":
            raise BadRequest("id is the number of an activation, or file")
        return self._change(lambda one: one.activate(texts["host"], number))

    def _roll_back(self, arguments: Arguments) -> Deferred[Answer]:
        """{"host": name}."""
        host = _texts(arguments, "host")["host"]
        return self._change(lambda one: one.roll_back(host))

    def _list(self, arguments: Arguments) -> Deferred[DataAnswer]:
        _texts(arguments)
        return self._one_at_a_time(self._query, lambda: certificate_rows(self._policy, self._activation))

    def _history(self, arguments: Arguments) -> Deferred[DataAnswer]:
        host = _texts(arguments, "host")["host"]
        return self._one_at_a_time(self._query, lambda: history_rows(self._activation.history, host))

    def _query(self, question: Callable[[], Any]) -> Deferred[DataAnswer]:
        async def ask() -> DataAnswer:
            try:
                return DataAnswer(await in_thread(self._reactor, question))
            except CannotRecord as error:
                return DataAnswer([], ok=False, lines=(str(error),))

        return Deferred.fromCoroutine(ask())

    # --- Changes

    def _note_refused(self) -> None:
        """Note the hosts that the start or a reload has reported."""
        self._refused = {host for host, each in self._policy.served.by_host.items() if each.origin == "last good"}

    async def _take_files(self, hosts: Hosts, report: bool) -> bool | None:
        async def take() -> bool | None:
            try:
                changed = await in_thread(self._reactor, lambda: self._transaction().take_files(hosts))
            except ChangeRefused as refused:
                if report:
                    _warn(refused.lines)
                    self._refused.update(hosts)
                return None if refused.later else False
            bad = [line for line in changed.lines if ": refused" in line]
            _log([line for line in changed.lines if line not in bad])
            if report:
                _warn(bad)
            states = {outcome.name: outcome.state for outcome in changed.prepared.outcomes}
            valid = [host for host in hosts if host in self._refused and states.get(host) == "unchanged"]
            _log([f"{host}: its files are valid again, and hold what is served" for host in valid])
            self._refused.difference_update(host for host in hosts if states.get(host) != "refused")
            if report:
                self._refused.update(host for host in hosts if states.get(host) == "refused")
            ok, lines = await self._put_in_place(changed)
            (_log if ok else _warn)(lines)
            return changed.whole and ok

        taken: bool | None = await self._one_at_a_time(lambda: Deferred.fromCoroutine(take()))
        return taken

    def _change(self, work: Callable[[Transaction], RecordedChange], *, later: bool = False) -> Deferred[Answer]:
        """Make a change. With `later`, fail with a ChangeRefused that may succeed later."""

        async def change() -> Answer:
            try:
                changed = await in_thread(self._reactor, lambda: work(self._transaction()))
            except ChangeRefused as refused:
                if later and refused.later:
                    raise
                answer = False, [*refused.lines, "nothing was changed"]
            else:
                ok, lines = await self._put_in_place(changed)
                answer = ok and changed.whole, [*(changed.lines or ["unchanged"]), *lines]
            (_log if answer[0] else _warn)(answer[1])
            return answer

        return self._one_at_a_time(lambda: Deferred.fromCoroutine(change()))

    def _transaction(self) -> Transaction:
        return Transaction(self._activation, self._policy, self._config(), dt.datetime.now(dt.UTC))

    async def _put_in_place(self, changed: RecordedChange) -> Answer:
        """Serve the change, try it at the listeners, and go back for hosts that they do not show."""
        if not self._policy.changed_hosts(changed.prepared) and changed.prepared.private_ca == self._policy.private_ca:
            return True, []
        lines = await self._serve(changed.prepared)
        if not changed.hosts:
            return True, lines
        served = changed.prepared.map.by_host
        expected = {host: trial.fingerprints(served[host]) for host in changed.hosts}
        demanding = {host for host in expected if served[host].terms.demand.certificates == "required"}
        faults = await in_thread(self._reactor, trial.check_listeners, self._config().listeners, expected, demanding)
        if faults:
            # A worker that was late has been replaced by now.
            await deferLater(self._reactor, CONFIRMATION)
            again = {host: expected[host] for host in faults}
            faults = await in_thread(self._reactor, trial.check_listeners, self._config().listeners, again, demanding)
        if not faults:
            return True, lines
        lines += [f"{host}: {fault}" for host, fault in faults.items()]
        try:
            back = await in_thread(self._reactor, lambda: self._transaction().go_back(faults))
        except ChangeRefused as refused:
            return False, [*lines, *refused.lines]
        return False, [*lines, *await self._serve(back.prepared), *(f"went back: {line}" for line in back.lines)]

    async def _take_recorded(self) -> None:
        """Serve what a command has recorded itself because this server was starting and had no control socket yet."""
        try:
            if not await in_thread(self._reactor, self._activation.history.was_changed):
                return
            hosts = [host for domain in self._config().domains_and_sites for host in domain.hosts]
            changed = await in_thread(self._reactor, lambda: self._transaction().take_files(hosts))
        except CannotRecord:
            return  # whoever makes a change gets the error
        except ChangeRefused as refused:
            _warn(refused.lines)
            return
        _log(changed.lines)
        ok, lines = await self._put_in_place(changed)
        (_log if ok else _warn)(lines)

    # --- Dates

    def _check_expiry(self) -> Deferred[None]:
        async def check() -> None:
            await self._take_recorded()
            now = dt.datetime.now(dt.UTC)
            for warning in await in_thread(self._reactor, self._expiry.due_warnings, self._policy.describe(), now):
                log.warn("certificate: {warning}", event="certificate-expires", warning=warning)

        checking = self._one_at_a_time(lambda: Deferred.fromCoroutine(check()))
        return checking.addErrback(
            lambda failure: log.failure("the check of expiry dates has failed", failure, event="bug")
        )


def _log(lines: Sequence[str]) -> None:
    for line in lines:
        log.info("certificate: {change}", event="certificate-changed", change=line)


def _warn(lines: Sequence[str]) -> None:
    for line in lines:
        log.warn("certificate: {reason}", event="certificate-problem", reason=line)


def _texts(arguments: Arguments, *names: str) -> dict[str, str]:
    """Validate that exactly these texts are there. Raises: BadRequest."""
    if set(arguments) != set(names) or not all(isinstance(value, str) for value in arguments.values()):
        raise BadRequest(f"takes texts: {', '.join(names) or 'none'}")
    return dict(arguments)
