"""One change of what is served, whole or not at all: from the files, from elsewhere, or back to what was.

The new pair is read and judged (key, chain, dates, names, strength), built into a context, tried out in a handshake, and
recorded; whatever fails leaves all as it was. Who serves it asks the listeners afterwards, and comes back with
`go_back` for the hosts that do not show it.

Nothing here knows Twisted: it reads files and syncs, so a server calls it in a thread, one at a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence

from attrs import frozen

from mailserver.config.directories import reader_trust
from mailserver.config.model import Config, Domain
from mailserver.tls.changes import trial
from mailserver.tls.changes.activation import Activation
from mailserver.tls.context.contexts import ContextMap, Origin
from mailserver.tls.keypair import published_ca
from mailserver.tls.keypair.pair import LONGEST_CHAIN, BadPair, Pair, covers, has_same_key, parse_pair
from mailserver.tls.serving.context_builder import Outcome
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.tls.serving.source import read_files
from mailserver.tls.state.history import CannotRecord, Entry, content

FILES_CHANGED = "the files have changed"
_REVOKED = "was revoked by its authority"


class Refused(Exception):
    """A change that is not made; `lines` say why, one for each host or fault."""

    def __init__(self, lines: Sequence[str], *, later: bool = False) -> None:
        super().__init__("; ".join(lines))
        self.lines = list(lines)
        self.later = later
        """The same may be taken at another time."""


@frozen
class Changed:
    """A change that is recorded, to be served now."""

    prepared: Prepared
    hosts: tuple[str, ...]
    """Those whose certificate is another than before."""
    lines: tuple[str, ...]
    """What became of each host that was to change, in words."""
    whole: bool
    """False where something was refused."""


@frozen
class Transaction:
    """A change, by one of its methods. All raise: Refused."""

    activation: Activation
    policy: TlsPolicy
    """What serves now, with `activation` as its source."""
    config: Config
    now: dt.datetime

    def take_files(self, hosts: Collection[str]) -> Changed:
        """Take up the files of some hosts as they are now; what cannot be served is told, and the last good one stays.

        Without hosts, what is offered of the own authority alone.
        """
        if not hosts:
            self.activation.see(published_ca.paths_of(self.config.tls))
        return self._change(hosts, lambda: None, FILES_CHANGED)

    def offer(
        self,
        hosts: Sequence[str],
        chain_pem: bytes,
        key_pem: bytes,
        *,
        second: tuple[bytes, bytes] | None = None,
        reason: str,
        origin: Origin,
    ) -> Changed:
        """Serve hosts that have no files of their own with another pair; all of them, or none.

        Without hosts, all of those that it covers. `second`: chain and key of a pair beside it, of the other key type.
        Where a key is empty the certificate is for one that such hosts are served with now.
        """
        if not self.activation.history.is_durable:
            raise Refused([self.activation.history.problem])
        pair = _parse("", chain_pem, key_pem or self._key_served(chain_pem))
        beside = None if second is None else _parse("second_", second[0], second[1] or self._key_served(second[0]))
        wanted = hosts or [host for host in managed_hosts(self.config) if covers(pair.names, host)]
        self._judge(wanted, pair, beside)

        def edit() -> None:
            what = content(pair, beside)
            new = [host for host in dict.fromkeys(wanted) if not self._is_current(host, what)]
            if new:
                self.activation.history.add(pair, new, second=beside, time=self._time, reason=reason, origin=origin)

        return self._change(wanted, edit, reason)

    def roll_back(self, host: str) -> Changed:
        """Serve what the host had before; again, and it is one step further.

        Files are passed over from then on, until they change.
        """
        domain = self._domain_of(host)
        entry = self._found(lambda: self.activation.history.before(host))
        if entry is None:
            raise Refused([f"{host}: there is no earlier certificate to go back to"])
        return self._restore(domain, host, entry, f"rolled back to {entry.id}")

    def activate(self, host: str, number: int | None) -> Changed:
        """Serve a host with a recorded activation; with None, with its files again."""
        domain = self._domain_of(host)
        if number is None:
            if domain.certificate is None:
                raise Refused([f"{host}: the configuration names no files for it"])
            return self._change([host], lambda: self.activation.history.unpin(host), "the files again")
        entry = self._found(lambda: self.activation.history.entry(host, number))
        if entry is None:
            raise Refused([f"{host}: has no activation {number}; `mailserver cert history {host}` lists them"])
        return self._restore(domain, host, entry, f"activated {number} again")

    def go_back(self, faults: Mapping[str, str]) -> Changed:
        """Serve again what hosts had before, for a fault that the listeners showed of each."""
        history = self.activation.history

        def edit() -> None:
            for host, fault in faults.items():
                entry = history.before(host)
                if entry is None:
                    raise Refused([f"{host}: there is no earlier certificate to go back to"])
                self._judge_again(host, entry)
                self._pin(self._domain_of(host), host)
                self._add_again(host, entry, f"went back to {entry.id}: {fault}")

        return self._change(list(faults), edit, FILES_CHANGED)

    # --- Inside

    @property
    def _time(self) -> int:
        return int(self.now.timestamp())

    def _key_served(self, chain_pem: bytes) -> bytes:
        """The key of a certificate, among those that are served without files. Raises: Refused."""
        served = self.policy.served.by_host
        pairs = [pair for host in managed_hosts(self.config) if host in served for pair in served[host].pairs]
        key = next((pair.key_pem.reveal() for pair in pairs if has_same_key(pair.chain_pem, chain_pem)), None)
        if key is None and chain_pem:
            raise Refused(["key must be given: no host without files is served with the one of this certificate"])
        return key or b""

    def _judge(self, hosts: Sequence[str], pair: Pair, second: Pair | None) -> None:
        """Whether a pair, and one beside it, may be added for these hosts. Raises: Refused with every fault."""
        names = ", ".join(pair.names[:5])
        faults = []
        for host in hosts:
            if fault := not_addable(self.config, host):
                faults.append(fault)
            else:
                faults += [
                    f"{host}: is not covered by {word}, which names {', '.join(each.names[:5])}"
                    for word, each in (("the certificate", pair), ("second_certificate", second))
                    if each is not None and not covers(each.names, host)
                ]
        if not hosts:
            faults.append(f"the certificate covers no host of a [[domain]] without files; it names {names}")
        for word, each in (("certificate", pair), ("second_certificate", second)):
            if each is not None and not each.is_current(self.now):
                faults += [f"{word} {fault.reason}" for fault in each.date_faults(self.now)]
            if each is not None and self._is_revoked(each):
                faults.append(f"{word} {_REVOKED}")
            if each is not None and not each.builds:
                faults.append(f"{word} has its chain out of order: each must be signed by the one behind it")
            if each is not None and each.length > LONGEST_CHAIN:
                faults.append(f"{word} has {each.length} certificates in its chain; clients refuse so many")
        if second is not None and second.key_type == pair.key_type:
            faults.append(f"second_certificate has a key of the first one's type, {pair.key_type}")
        if faults:
            raise Refused(faults)

    def _judge_again(self, host: str, entry: Entry) -> None:
        """Whether what was served before may be served again. Raises: Refused with every fault."""
        history = self.activation.history
        try:
            pairs = [history.pair(digest) for digest in (entry.digest, entry.second) if digest is not None]
        except BadPair as bad:
            raise Refused([f"{host}: activation {entry.id}: {bad}"]) from bad
        except CannotRecord as error:
            raise Refused([str(error)], later=True) from error
        old = [fault.reason for pair in pairs if not pair.is_current(self.now) for fault in pair.date_faults(self.now)]
        words = ("certificate", "second_certificate")
        old += [f"{word} {_REVOKED}" for word, pair in zip(words, pairs, strict=False) if self._is_revoked(pair)]
        if old:
            raise Refused([f"{host}: activation {entry.id}: {reason}" for reason in old])

    def _restore(self, domain: Domain, host: str, entry: Entry, reason: str) -> Changed:
        self._judge_again(host, entry)

        def edit() -> None:
            self._pin(domain, host)
            self._add_again(host, entry, reason)

        return self._change([host], edit, reason)

    def _is_revoked(self, pair: Pair) -> bool:
        """Raises: Refused."""
        try:
            if self.activation.history.is_revoked(pair.fingerprint):
                return True
        except CannotRecord as error:
            raise Refused([str(error)], later=True) from error
        return published_ca.has_revoked(published_ca.read_offered(self.config.tls, []), pair.chain_pem)

    def _pin(self, domain: Domain, host: str) -> None:
        """Pass over the host's files until they change."""
        if domain.certificate is None:
            return
        found = read_files(domain, self.now, self.config.tls, reader_trust(self.config))
        if found.pair is not None:
            self.activation.history.pin(host, content(found.pair, found.terms.second))

    def _add_again(self, host: str, entry: Entry, reason: str) -> None:
        history = self.activation.history
        second = None if entry.second is None else history.pair(entry.second)
        history.add(
            history.pair(entry.digest),
            [host],
            second=second,
            time=self._time,
            reason=reason,
            origin=entry.origin,
            restores=entry.id,
        )

    def _is_current(self, host: str, what: bytes) -> bool:
        entry = self.activation.history.current(host)
        return entry is not None and entry.content == what

    def _domain_of(self, host: str) -> Domain:
        for domain in self.config.certified:
            if host in domain.hosts:
                return domain
        raise Refused([f"{host}: is no host of a [[domain]]"])

    @staticmethod
    def _found(question: Callable[[], Entry | None]) -> Entry | None:
        try:
            return question()
        except CannotRecord as error:
            raise Refused([str(error)], later=True) from error

    def _change(self, hosts: Collection[str], edit: Callable[[], None], reason: str) -> Changed:
        try:
            with self.activation.history.transaction():
                edit()
                prepared = self.policy.prepare_hosts(self.config, hosts)
                changed = self.policy.changed_hosts(prepared)
                faults = trial.in_memory(prepared.map, prepared.tls, changed)
                if faults:
                    raise Refused([f"{host}: {fault}" for host, fault in faults.items()])
                self.activation.note(prepared.map, changed, reason)
        except CannotRecord as error:
            raise Refused([str(error)], later=True) from error
        served = self.policy.served
        renewed = tuple(host for host in changed if _pairs(prepared.map, host) != _pairs(served, host))
        lines = tuple(
            _line(outcome, prepared, renewed) for outcome in prepared.outcomes if outcome.state != "unchanged"
        )
        refused = any(outcome.state == "refused" for outcome in prepared.outcomes)
        return Changed(prepared, renewed, lines, whole=not refused)


def _parse(word: str, chain_pem: bytes, key_pem: bytes) -> Pair:
    """Raises: Refused."""
    try:
        return parse_pair(chain_pem, key_pem)
    except BadPair as bad:
        raise Refused([f"{word}{fault.key} {fault.reason}" for fault in bad.faults]) from bad


def not_addable(config: Config, host: str) -> str | None:
    """Why no certificate at all can be added for a host, in words."""
    domain = next((each for each in config.certified if host in each.hosts), None)
    if domain is None:
        return f"{host}: is no host of a [[domain]]"
    if domain.certificate is None:
        return None
    return (
        f"{host}: has files in its [[domain]]: renew {domain.certificate} and its key,"
        " or take `certificate` and `key` out of the table first"
    )


def managed_hosts(config: Config) -> list[str]:
    """Hosts whose domain names no files."""
    return [host for domain in config.certified if domain.certificate is None for host in domain.hosts]


def _pairs(served: ContextMap, host: str) -> bytes | None:
    serving = served.by_host.get(host)
    return None if serving is None else content(serving.pair, serving.terms.second)


def _line(outcome: Outcome, prepared: Prepared, renewed: Collection[str]) -> str:
    serving = prepared.map.by_host.get(outcome.name)
    if outcome.state != "taken up" or serving is None:
        return str(outcome)
    why = f"; {outcome.why}" if outcome.why else ""
    if outcome.name not in renewed:
        return f"{outcome.name}: client_ca and client_crl taken up{why}"
    pair = serving.pair
    return f"{outcome.name}: taken up, until {pair.not_after:%Y-%m-%d}, SHA-256 {pair.fingerprint[:16]}{why}"
