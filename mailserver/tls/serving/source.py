"""Sources of certificates for a configuration: by default the files it names; in a server `Activation` adds its history."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from attrs import frozen

from mailserver.config.model import Domain, Tls
from mailserver.config.strict_modes import Trust
from mailserver.tls.context.context_map import Origin, Terms
from mailserver.tls.keypair.pair import Pair
from mailserver.tls.keypair.pem import Fault
from mailserver.tls.serving.validation import read_domain

FIRST_PAIR_KEYS: Final = frozenset({"certificate", "key", "hosts"})
PAIR_KEYS: Final = FIRST_PAIR_KEYS | {"second_certificate", "second_key", "key_password_file", "key_password_command"}
"""Keys whose faults concern a pair, not the terms."""


@frozen
class Candidate:
    """A validated pair and terms for a host name."""

    pair: Pair | None
    terms: Terms
    faults: Sequence[Fault] = ()
    """A fault with a host as its value concerns that host alone."""
    origin: Origin = "file"

    def is_wrong_beside(self, keys: frozenset[str]) -> bool:
        """Is there a fault, other than a warning, of other keys than these?"""
        return any(not fault.warning and fault.key not in keys for fault in self.faults)


class Source(Protocol):
    """A source of certificates for `context_builder.build`. All calls may read files."""

    def read(self, domain: Domain, now: dt.datetime, tls: Tls) -> Callable[[str], Candidate]:
        """Return a function from host to candidate for a domain. Raises nothing."""

    def fallback(self, domain: Domain, host: str, candidate: Candidate) -> Candidate | None:
        """Return what to serve if the candidate cannot be, and nothing was served before."""


class Files:
    """The files of the configuration alone. Implements Source."""

    def read(self, domain: Domain, now: dt.datetime, tls: Tls) -> Callable[[str], Candidate]:
        """Return the same candidate for each host."""
        candidate = read_files(domain, now, tls)
        return lambda _host: candidate

    def fallback(self, _domain: Domain, _host: str, _candidate: Candidate) -> Candidate | None:
        """Return None."""
        return None


def read_files(domain: Domain, now: dt.datetime, tls: Tls, trusted: Trust | None = None) -> Candidate:
    """Read a domain's files; `trusted`: see `read_domain`."""
    reading = read_domain(domain, now, tls, trusted)
    faults = reading.faults
    if domain.certificate is None:
        faults = [*faults, Fault("certificate", "is not named, and none was added")]
    return Candidate(reading.pair, reading.terms, faults)
