"""One change of the served certificates, whole or not at all: from files, from elsewhere, or back to an earlier one.

The new pair is read and validated (key, chain, dates, names, strength), built into a context, tried in a handshake, and
recorded. Any failure leaves everything as it was. The server then asks its listeners for the certificate, and calls
`go_back` for the hosts that do not show it.

This module knows no Twisted: it reads files and syncs, so a server calls it in a thread, one change at a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence

from attrs import frozen

from mailserver.config.directories import reader_trust
from mailserver.config.model import Config, Domain
from mailserver.tls.changes import trial
from mailserver.tls.changes.activation import Activation
from mailserver.tls.context.context_map import ContextMap, Origin
from mailserver.tls.keypair import published_ca
from mailserver.tls.keypair.pair import LONGEST_CHAIN, BadPair, Pair, covers, has_same_key, parse_pair
from mailserver.tls.serving.context_builder import Outcome
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.tls.serving.source import read_files
from mailserver.tls.state.history import CannotRecord, Entry, content

FILES_CHANGED = "the files have changed"
_REVOKED = "was revoked by its authority"


class ChangeRefused(Exception):
    """A change that is not made; `lines` say why, one for each host or fault."""

    def __init__(self, lines: Sequence[str], *, later: bool = False) -> None:
        super().__init__("; ".join(lines))
        self.lines = list(lines)
        self.later = later
        """May the same change succeed at another time?"""


@frozen
class RecordedChange:
    """A recorded change, ready to be served."""

    prepared: Prepared
    hosts: tuple[str, ...]
    """Hosts that get another certificate."""
    lines: tuple[str, ...]
    """The result for each host of the change, in words."""
    whole: bool
    """False if part of it was refused."""


@frozen
class Transaction:
    """A change, made by one of its methods. All raise: ChangeRefused."""

    activation: Activation
    policy: TlsPolicy
    """The policy that serves now, with `activation` as its source."""
    config: Config
    now: dt.datetime

    def take_files(self, hosts: Collection[str]) -> RecordedChange:
        """Load the files of some hosts as they are now; a host whose files are refused keeps its last good certificate.

        Without hosts, load the published authority alone.
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
    ) -> RecordedChange:
        """Serve hosts without files with another pair, all of them or none.

        Without hosts, all that it covers. `second` is the chain and key of a pair with the other key type. An empty key
        stands for the key that such hosts are served with now.
        """
        if not self.activation.history.is_durable:
            raise ChangeRefused([self.activation.history.problem])
        pair = _parse("", chain_pem, key_pem or self._key_served(chain_pem))
        beside = None if second is None else _parse("second_", second[0], second[1] or self._key_served(second[0]))
        wanted = hosts or [host for host in managed_hosts(self.config) if covers(pair.names, host)]
        self._validate(wanted, pair, beside)

        def edit() -> None:
            what = content(pair, beside)
            new = [host for host in dict.fromkeys(wanted) if not self._is_current(host, what)]
            if new:
                self.activation.history.add(pair, new, second=beside, time=self._time, reason=reason, origin=origin)

        return self._change(wanted, edit, reason)

    def roll_back(self, host: str) -> RecordedChange:
        """Serve a host with its previous certificate; each call goes back one step further.

        The host's files are then ignored until they change.
        """
        domain = self._domain_of(host)
        entry = self._entry(lambda: self.activation.history.before(host))
        if entry is None:
            raise ChangeRefused([f"{host}: there is no earlier certificate to go back to"])
        return self._restore(domain, host, entry, f"rolled back to {entry.id}")

    def activate(self, host: str, number: int | None) -> RecordedChange:
        """Serve a host with a recorded activation; with None, with its files again."""
        domain = self._domain_of(host)
        if number is None:
            if domain.certificate is None:
                raise ChangeRefused([f"{host}: the configuration names no files for it"])
            return self._change([host], lambda: self.activation.history.unpin(host), "the files again")
        entry = self._entry(lambda: self.activation.history.entry(host, number))
        if entry is None:
            raise ChangeRefused([f"{host}: has no activation {number}; `mailserver cert history {host}` lists them"])
        return self._restore(domain, host, entry, f"activated {number} again")

    def go_back(self, faults: Mapping[str, str]) -> RecordedChange:
        """Serve hosts again with their previous certificate, for the fault that a listener showed of each."""
        history = self.activation.history

        def edit() -> None:
            for host, fault in faults.items():
                entry = history.before(host)
                if entry is None:
                    raise ChangeRefused([f"{host}: there is no earlier certificate to go back to"])
                self._validate_recorded(host, entry)
                self._pin(self._domain_of(host), host)
                self._add_again(host, entry, f"went back to {entry.id}: {fault}")

        return self._change(list(faults), edit, FILES_CHANGED)

    # --- Inside

    @property
    def _time(self) -> int:
        return int(self.now.timestamp())

    def _key_served(self, chain_pem: bytes) -> bytes:
        """Find the key of a certificate among those served without files. Raises: ChangeRefused."""
        served = self.policy.served.by_host
        pairs = [pair for host in managed_hosts(self.config) if host in served for pair in served[host].pairs]
        key = next((pair.key_pem.reveal() for pair in pairs if has_same_key(pair.chain_pem, chain_pem)), None)
        if key is None and chain_pem:
            raise ChangeRefused(["key must be given: no host without files is served with the one of this certificate"])
        return key or b""

    def _validate(self, hosts: Sequence[str], pair: Pair, second: Pair | None) -> None:
        """May a pair, and one beside it, be added for these hosts? Raises: ChangeRefused with every fault."""
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
            raise ChangeRefused(faults)

    def _validate_recorded(self, host: str, entry: Entry) -> None:
        """May an earlier activation be served again? Raises: ChangeRefused with every fault."""
        history = self.activation.history
        try:
            pairs = [history.pair(digest) for digest in (entry.digest, entry.second) if digest is not None]
        except BadPair as bad:
            raise ChangeRefused([f"{host}: activation {entry.id}: {bad}"]) from bad
        except CannotRecord as error:
            raise ChangeRefused([str(error)], later=True) from error
        old = [fault.reason for pair in pairs if not pair.is_current(self.now) for fault in pair.date_faults(self.now)]
        words = ("certificate", "second_certificate")
        old += [f"{word} {_REVOKED}" for word, pair in zip(words, pairs, strict=False) if self._is_revoked(pair)]
        if old:
            raise ChangeRefused([f"{host}: activation {entry.id}: {reason}" for reason in old])

    def _restore(self, domain: Domain, host: str, entry: Entry, reason: str) -> RecordedChange:
        self._validate_recorded(host, entry)

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
            raise ChangeRefused([str(error)], later=True) from error
        return published_ca.has_revoked(published_ca.read_published_ca(self.config.tls, []), pair.chain_pem)

    def _pin(self, domain: Domain, host: str) -> None:
        """Ignore the host's files until they change."""
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
        for domain in self.config.domains_and_sites:
            if host in domain.hosts:
                return domain
        raise ChangeRefused([f"{host}: is no host of a [[domain]]"])

    @staticmethod
    def _entry(question: Callable[[], Entry | None]) -> Entry | None:
        try:
            return question()
        except CannotRecord as error:
            raise ChangeRefused([str(error)], later=True) from error

    def _change(self, hosts: Collection[str], edit: Callable[[], None], reason: str) -> RecordedChange:
        try:
            with self.activation.history.transaction():
                edit()
                prepared = self.policy.prepare_hosts(self.config, hosts)
                changed = self.policy.changed_hosts(prepared)
                faults = trial.check_in_memory(prepared.map, prepared.tls, changed)
                if faults:
                    raise ChangeRefused([f"{host}: {fault}" for host, fault in faults.items()])
                self.activation.note(prepared.map, changed, reason)
        except CannotRecord as error:
            raise ChangeRefused([str(error)], later=True) from error
        served = self.policy.served
        renewed = tuple(host for host in changed if _pairs(prepared.map, host) != _pairs(served, host))
        lines = tuple(
            _line(outcome, prepared, renewed) for outcome in prepared.outcomes if outcome.state != "unchanged"
        )
        refused = any(outcome.state == "refused" for outcome in prepared.outcomes)
        return RecordedChange(prepared, renewed, lines, whole=not refused)


def _parse(word: str, chain_pem: bytes, key_pem: bytes) -> Pair:
    """Validate octets. Raises: ChangeRefused."""
    try:
        return parse_pair(chain_pem, key_pem)
    except BadPair as bad:
        raise ChangeRefused([f"{word}{fault.key} {fault.reason}" for fault in bad.faults]) from bad


def not_addable(config: Config, host: str) -> str | None:
    """Return why no certificate can be added for a host."""
    domain = next((each for each in config.domains_and_sites if host in each.hosts), None)
    if domain is None:
        return f"{host}: is no host of a [[domain]]"
    if domain.certificate is None:
        return None
    return (
        f"{host}: has files in its [[domain]]: renew {domain.certificate} and its key,"
        " or take `certificate` and `key` out of the table first"
    )


def managed_hosts(config: Config) -> list[str]:
    """Return the hosts whose domain names no files."""
    return [host for domain in config.domains_and_sites if domain.certificate is None for host in domain.hosts]


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
