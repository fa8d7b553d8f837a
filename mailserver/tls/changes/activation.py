"""The certificates of a configuration with their history: a source for the TLS policy.

Each host has a history of activations. A host is served with the pair of its configured files, unless the administrator has
rolled it back (pinned). If the files cannot be served, or none are named, it is the last activation. If there is none, it
is a self-signed certificate made here, so that a server always starts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import attrs

from mailserver.config.model import Domain, Tls
from mailserver.config.strict_modes import Trust
from mailserver.tls.ca.authority import make_self_signed
from mailserver.tls.context.context_map import ContextMap, Origin
from mailserver.tls.keypair import files
from mailserver.tls.keypair.pair import SOON, BadPair, Pair, covers, pair_faults, parse_pair
from mailserver.tls.keypair.pem import Fault
from mailserver.tls.serving.source import FIRST_PAIR_KEYS, PAIR_KEYS, Candidate, read_files
from mailserver.tls.state.history import History, content

BOOTSTRAP: Final = "made here: there is no certificate that can be served"


class Activation:
    """The certificates of a configuration. Implements `source.Source`."""

    def __init__(
        self,
        history: History,
        *,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        trusted: Trust | None = None,
    ) -> None:
        """`trusted`: see `validation.read_domain`."""
        self.history = history
        self._trusted = trusted
        self.seen: dict[tuple[Path, ...], files.FileStates] = {}
        """The state of each domain's files when they were last read."""
        self._now = now
        self._made: dict[tuple[str, ...], Pair] = {}

    def see(self, paths: tuple[Path, ...]) -> None:
        """Remember the state of files that are about to be read."""
        self.seen[paths] = files.file_states(paths)

    # --- As a Source

    def read(self, domain: Domain, now: dt.datetime, tls: Tls) -> Callable[[str], Candidate]:
        """Return the certificate to serve for each host of a domain."""
        paths = files.paths_of(domain)
        before = files.file_states(paths)
        found = read_files(domain, now, tls, self._trusted)
        named = domain.certificate is not None
        if paths:
            self.seen[paths] = before
        if files.file_states(paths) != before:
            # The files are read again soon: the state that was remembered is not the one that was read.
            fault = Fault("certificate" if named else "client_ca", "changed while it was read")
            found = attrs.evolve(found, pair=None, faults=[*found.faults, fault])
        if named:
            return lambda host: self._of_files(host, found)
        return lambda host: self._recorded(host, found) or self._self_signed(domain, host, found)

    def fallback(self, domain: Domain, host: str, found: Candidate) -> Candidate | None:
        """Return the last activation, the first pair of the files without an invalid second one, or a self-signed one.

        None if the terms are invalid: a host must not demand less than its configuration says.
        """
        if found.is_wrong_beside(PAIR_KEYS):
            return None
        recorded = self._recorded(host, found)
        if recorded is not None:
            return attrs.evolve(recorded, origin="last good")
        if (
            found.pair is not None
            and not found.is_wrong_beside(PAIR_KEYS - FIRST_PAIR_KEYS)
            and covers(found.pair.names, host)
        ):
            return attrs.evolve(found, terms=attrs.evolve(found.terms, second=None))
        return self._self_signed(domain, host, found)

    def _of_files(self, host: str, found: Candidate) -> Candidate:
        if found.pair is None:
            return found
        what = content(found.pair, found.terms.second)
        pinned = self.history.pinned(host) == what
        last = self._recorded(host, found) if pinned or not found.pair.builds else None
        if last is None or last.pair is None or content(last.pair, last.terms.second) == what:
            return found
        if pinned:
            return attrs.evolve(last, origin="rolled back")
        if last.pair.builds:
            # A starting server takes what it gets; one with a good chain need not replace it by a bad one.
            fault = Fault("certificate", "has its chain out of order, and the one served has not")
            return attrs.evolve(found, faults=[*found.faults, fault])
        return found

    def _recorded(self, host: str, found: Candidate) -> Candidate | None:
        """Return the last activation that is not self-signed, on the terms of `found`."""
        entry = self.history.current(host)
        if entry is None or entry.origin == "self-signed":
            return None
        try:
            pair = self.history.pair(entry.digest)
            second = None if entry.second is None else self.history.pair(entry.second)
        except BadPair:  # this version no longer accepts it
            return None
        return self._found(pair, second, host, found, entry.origin)

    def _self_signed(self, domain: Domain, host: str, found: Candidate) -> Candidate:
        pair = self._kept(host)
        if pair is None:
            if domain.hosts not in self._made:
                self._made[domain.hosts] = parse_pair(*make_self_signed(domain.hosts, now=self._now()))
            pair = self._made[domain.hosts]
        warning = Fault("certificate", "is self-signed: clients refuse it until it is replaced", warning=True)
        made = self._found(pair, None, host, found, "self-signed")
        return attrs.evolve(made, faults=[*made.faults, warning])

    def _kept(self, host: str) -> Pair | None:
        """Return the self-signed pair of a host, unless it ends soon."""
        entry = self.history.current(host)
        if entry is None or entry.origin != "self-signed":
            return None
        pair = self.history.pair(entry.digest)
        return pair if pair.not_before <= self._now() < pair.not_after - SOON else None

    def _found(self, pair: Pair, second: Pair | None, host: str, found: Candidate, origin: Origin) -> Candidate:
        """Combine a pair with the terms of `found`, and with the faults of both."""
        of_terms = [fault for fault in found.faults if fault.key not in PAIR_KEYS]
        faults = [*of_terms, *pair_faults(pair, [host], self._now())]
        return Candidate(pair, attrs.evolve(found.terms, second=second), faults, origin)

    # --- The history

    def record(self, served: ContextMap, reason: str) -> None:
        """Record what is served and was not recorded. Raises: CannotRecord."""
        with self.history.transaction():
            self.note(served, served.by_host, reason)

    def note(self, served: ContextMap, hosts: Collection[str], reason: str) -> None:
        """The same for some hosts, inside a transaction."""
        groups: dict[tuple[bytes, Origin], list[str]] = {}
        for host in hosts:
            serving = served.by_host[host]
            entry = self.history.current(host)
            origin: Origin = "file" if serving.origin in ("last good", "rolled back") else serving.origin
            if serving.origin == "file" and self.history.pinned(host) is not None:
                self.history.unpin(host)
            what = content(serving.pair, serving.terms.second)
            if entry is None or entry.content != what:
                groups.setdefault((what, origin), []).append(host)
        now = int(self._now().timestamp())
        for (_what, origin), of_pair in groups.items():
            serving = served.by_host[of_pair[0]]
            why = BOOTSTRAP if origin == "self-signed" else reason
            self.history.add(serving.pair, of_pair, second=serving.terms.second, time=now, reason=why, origin=origin)
