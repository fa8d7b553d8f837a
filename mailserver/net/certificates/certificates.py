"""Certificates of a running server: taken up from disk and from the administrator, tried out, and told when they end.

`tls.changes.activation` judges and records, in a thread; then all processes serve the change, which no connection notices; then
the listeners are asked for it, as a client would, and what they do not show is taken back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool

from mailserver.config.model import Config
from mailserver.net.admin.control_socket import Answer, Arguments, BadRequest, Command, DataAnswer
from mailserver.net.certificates.certificate_files import CertificateFiles, Hosts
from mailserver.net.log.events import log
from mailserver.tls.changes import trial
from mailserver.tls.changes.activation import Activation
from mailserver.tls.changes.listing import described, history_of
from mailserver.tls.changes.transaction import Changed, Refused, Transaction
from mailserver.tls.context.contexts import Origin
from mailserver.tls.keypair.files import followed
from mailserver.tls.keypair.pair import Pair
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.tls.state.expiry import Expiry
from mailserver.tls.state.history import CannotRecord

EXPIRY_LOOK: Final = 3600.0
"""Seconds between two looks for certificates that end soon."""
CONFIRMATION: Final = 2.0
"""Seconds after which listeners that do not show a certificate are asked once more."""
CHANGES: Final = frozenset(
    {"cert-add", "cert-activate", "cert-rollback", "acme-renew", "acme-account", "acme-rollover", "acme-revoke"}
)
"""Commands for those alone who may read the keys."""

T = TypeVar("T")


class Certificates:
    """Where keys are read: in the master, or in the one process that does everything."""

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
        """`serve` has all processes take up what was prepared; `one_at_a_time(call)` waits for reloads, and they for it."""
        self._reactor = reactor
        self._policy = policy
        self._activation = activation
        self._config = config
        self._serve = serve
        self._one_at_a_time = one_at_a_time
        self._ill: set[str] = set()
        """Hosts of which was told that their files are refused."""
        self._files = CertificateFiles(reactor, activation.seen, self._take_files)
        self._expiry = Expiry(activation.history)
        self._looks = LoopingCall(self._look_for_ends)
        self._looks.clock = reactor

    def start(self) -> None:
        """Watch the files and the clock."""
        self._note_ill()
        self.follow()
        self._looks.start(EXPIRY_LOOK, now=True)

    def stop(self) -> None:
        """Watch nothing any more."""
        self._files.stop()
        if self._looks.running:
            self._looks.stop()

    def follow(self) -> None:
        """The configuration has changed."""
        config = self._config()
        if config.tls.follow_files:
            self._files.follow(followed(config))
        else:
            self._files.stop()

    async def reloaded(self, *, whole: bool) -> list[str]:
        """Remember what a reload has taken up; what hinders that."""
        if not whole:
            # It may have read files and then taken up nothing: they count as changed.
            self._activation.seen.clear()
        tls, history = self._config().tls, self._activation.history
        history.keep, history.keep_days = tls.history, tls.history_days
        try:
            await self._in_thread(self._activation.record, self._policy.served, "reload")
        except CannotRecord as error:
            return [str(error)]
        finally:
            self._note_ill()
            self.follow()
        return []

    def commands(self) -> dict[str, Command]:
        """For the control socket, by name."""
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
        """Serve hosts that have no files of their own with another pair.

        Was it done, and what became of each host, in words. Fails: Refused where the same may be taken later.
        """
        return self._change(lambda one: one.offer(hosts, chain_pem, key_pem, reason=reason, origin=origin), later=True)

    def recorded(self, host: str, number: int | None) -> Deferred[tuple[Pair, bool]]:
        """The pair of an activation of a host, or of what is served, and is it that? Fails: Refused, CannotRecord."""
        history = self._activation.history

        def find() -> tuple[Pair, bool]:
            entry = history.current(host) if number is None else history.entry(host, number)
            if entry is None:
                raise Refused([f"{host}: has no such activation; `mailserver cert history` lists them"])
            serving = self._policy.served.by_host.get(host)
            return history.pair(entry.digest), serving is not None and serving.pair.digest == entry.digest

        return self._one_at_a_time(self._in_thread, find)

    def revoked(self, fingerprint: str) -> Deferred[None]:
        """An authority has revoked this one: nobody goes back to it. Fails: CannotRecord."""

        def note() -> None:
            with self._activation.history.transaction():
                self._activation.history.revoke(fingerprint)

        return self._one_at_a_time(self._in_thread, note)

    def renew(self, hosts: Sequence[str], chains: Sequence[bytes], reason: str) -> Deferred[Answer]:
        """The same with other certificates of the one or two keys that they have."""
        second = (chains[1], b"") if len(chains) > 1 else None
        return self._change(lambda one: one.offer(hosts, chains[0], b"", second=second, reason=reason, origin="added"))

    def take_files(self, hosts: Sequence[str]) -> Deferred[Answer]:
        """Take up the files of hosts, which were just written."""
        return self._change(lambda one: one.take_files(hosts))

    # --- Commands

    def _add(self, arguments: Arguments) -> Deferred[Answer]:
        """{"hosts": names with spaces between, or none, "chain": PEM, "key": PEM, "reason": text}.

        "second_chain" and "second_key" too: of a pair beside it, or both "".
        """
        told = _texts(arguments, "hosts", "chain", "key", "second_chain", "second_key", "reason")
        hosts, chain, key = told["hosts"].split(), told["chain"].encode(), told["key"].encode()
        second = (told["second_chain"].encode(), told["second_key"].encode())
        return self._change(
            lambda one: one.offer(
                hosts, chain, key, second=second if any(second) else None, reason=told["reason"], origin="added"
            )
        )

    def _activate(self, arguments: Arguments) -> Deferred[Answer]:
        """{"host": name, "id": number of an activation, or "file"}."""
        told = _texts(arguments, "host", "id")
        number = int(told["id"]) if told["id"].isdecimal() and len(told["id"]) < 18 else None
        if number is None and told["id"] != "file":
            raise BadRequest("id is the number of an activation, or file")
        return self._change(lambda one: one.activate(told["host"], number))

    def _roll_back(self, arguments: Arguments) -> Deferred[Answer]:
        """{"host": name}."""
        host = _texts(arguments, "host")["host"]
        return self._change(lambda one: one.roll_back(host))

    def _list(self, arguments: Arguments) -> Deferred[DataAnswer]:
        _texts(arguments)
        return self._one_at_a_time(self._told, lambda: described(self._policy, self._activation))

    def _history(self, arguments: Arguments) -> Deferred[DataAnswer]:
        host = _texts(arguments, "host")["host"]
        return self._one_at_a_time(self._told, lambda: history_of(self._activation.history, host))

    def _told(self, question: Callable[[], Any]) -> Deferred[DataAnswer]:
        async def ask() -> DataAnswer:
            try:
                return DataAnswer(await self._in_thread(question))
            except CannotRecord as error:
                return DataAnswer([], ok=False, lines=(str(error),))

        return Deferred.fromCoroutine(ask())

    # --- Changes

    def _note_ill(self) -> None:
        """Of a start or a reload, which has told it."""
        self._ill = {host for host, each in self._policy.served.by_host.items() if each.origin == "last good"}

    async def _take_files(self, hosts: Hosts, tell: bool) -> bool | None:
        async def take() -> bool | None:
            try:
                changed = await self._in_thread(lambda: self._transaction().take_files(hosts))
            except Refused as refused:
                if tell:
                    _warn(refused.lines)
                    self._ill.update(hosts)
                return None if refused.later else False
            bad = [line for line in changed.lines if ": refused" in line]
            _log([line for line in changed.lines if line not in bad])
            if tell:
                _warn(bad)
            states = {outcome.name: outcome.state for outcome in changed.prepared.outcomes}
            well = [host for host in hosts if host in self._ill and states.get(host) == "unchanged"]
            _log([f"{host}: its files are well again, and have what is served" for host in well])
            self._ill.difference_update(host for host in hosts if states.get(host) != "refused")
            if tell:
                self._ill.update(host for host in hosts if states.get(host) == "refused")
            ok, lines = await self._put_in_place(changed)
            (_log if ok else _warn)(lines)
            return changed.whole and ok

        taken: bool | None = await self._one_at_a_time(lambda: Deferred.fromCoroutine(take()))
        return taken

    def _change(self, work: Callable[[Transaction], Changed], *, later: bool = False) -> Deferred[Answer]:
        """`later`: fail with a Refused of that kind."""

        async def change() -> Answer:
            try:
                changed = await self._in_thread(lambda: work(self._transaction()))
            except Refused as refused:
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

    async def _put_in_place(self, changed: Changed) -> Answer:
        """Serve it, ask the listeners for it, and go back where they do not show it."""
        if not self._policy.changed_hosts(changed.prepared) and changed.prepared.private_ca == self._policy.private_ca:
            return True, []
        lines = await self._serve(changed.prepared)
        if not changed.hosts:
            return True, lines
        served = changed.prepared.map.by_host
        expected = {host: trial.fingerprints(served[host]) for host in changed.hosts}
        demanding = {host for host in expected if served[host].terms.demand.certificates == "required"}
        faults = await self._in_thread(trial.listeners, self._config().listeners, expected, demanding)
        if faults:
            # A worker that was late is replaced by now.
            await deferLater(self._reactor, CONFIRMATION)
            again = {host: expected[host] for host in faults}
            faults = await self._in_thread(trial.listeners, self._config().listeners, again, demanding)
        if not faults:
            return True, lines
        lines += [f"{host}: {fault}" for host, fault in faults.items()]
        try:
            back = await self._in_thread(lambda: self._transaction().go_back(faults))
        except Refused as refused:
            return False, [*lines, *refused.lines]
        return False, [*lines, *await self._serve(back.prepared), *(f"went back: {line}" for line in back.lines)]

    async def _take_recorded(self) -> None:
        """Serve what a command has recorded by itself, as it found no control socket: this server was only beginning."""
        try:
            if not await self._in_thread(self._activation.history.was_changed):
                return
            hosts = [host for domain in self._config().certified for host in domain.hosts]
            changed = await self._in_thread(lambda: self._transaction().take_files(hosts))
        except CannotRecord:
            return  # whoever changes something is told
        except Refused as refused:
            _warn(refused.lines)
            return
        _log(changed.lines)
        ok, lines = await self._put_in_place(changed)
        (_log if ok else _warn)(lines)

    # --- The clock

    def _look_for_ends(self) -> Deferred[None]:
        async def look() -> None:
            await self._take_recorded()
            now = dt.datetime.now(dt.UTC)
            for warning in await self._in_thread(self._expiry.look, self._policy.describe(), now):
                log.warn("{line}", line=f"certificate: {warning}")

        looking = self._one_at_a_time(lambda: Deferred.fromCoroutine(look()))
        return looking.addErrback(lambda failure: log.failure("ends of certificates", failure))

    def _in_thread(self, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *arguments)


def _log(lines: Sequence[str]) -> None:
    for line in lines:
        log.info("{line}", line=f"certificate: {line}")


def _warn(lines: Sequence[str]) -> None:
    for line in lines:
        log.warn("{line}", line=f"certificate: {line}")


def _texts(arguments: Arguments, *names: str) -> dict[str, str]:
    """Raises: BadRequest unless these are there, as texts."""
    if set(arguments) != set(names) or not all(isinstance(value, str) for value in arguments.values()):
        raise BadRequest(f"takes texts: {', '.join(names) or 'none'}")
    return dict(arguments)
