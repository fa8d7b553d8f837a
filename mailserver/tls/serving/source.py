"""Where the certificates of a configuration come from: by itself the files it names, in a server `activation` too."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from attrs import frozen

from mailserver.config.model import Domain, Tls
from mailserver.config.strict_modes import Trust
from mailserver.tls.context.contexts import Origin, Terms
from mailserver.tls.keypair.pair import Fault, Pair
from mailserver.tls.serving.validation import read_domain

OF_FIRST: Final = frozenset({"certificate", "key", "hosts"})
OF_PAIRS: Final = OF_FIRST | {"second_certificate", "second_key", "key_password_file", "key_password_command"}
"""Keys whose faults are of a pair, not of the terms."""


@frozen
class Found:
    """What there is for a host name, judged."""

    pair: Pair | None
    terms: Terms
    faults: Sequence[Fault] = ()
    """With a host as their value, of that host alone."""
    origin: Origin = "file"

    def is_wrong_beside(self, keys: frozenset[str]) -> bool:
        """Is there a fault, other than a warning, of other keys than these?"""
        return any(not fault.warning and fault.key not in keys for fault in self.faults)


class Source(Protocol):
    """For `assembly.build`. All calls may read files."""

    def read(self, domain: Domain, now: dt.datetime, tls: Tls) -> Callable[[str], Found]:
        """What is to be served for each host of a domain. Raises nothing."""

    def stand_in(self, domain: Domain, host: str, found: Found) -> Found | None:
        """What is served where what was found cannot be, and nothing was served before."""


class Files:
    """The files of the configuration alone. A Source."""

    def read(self, domain: Domain, now: dt.datetime, tls: Tls) -> Callable[[str], Found]:
        """The same for each host."""
        found = read_files(domain, now, tls)
        return lambda _host: found

    def stand_in(self, _domain: Domain, _host: str, _found: Found) -> Found | None:
        """Nothing."""
        return None


def read_files(domain: Domain, now: dt.datetime, tls: Tls, trusted: Trust | None = None) -> Found:
    """What a domain's files hold; `trusted`: see `read_domain`."""
    reading = read_domain(domain, now, tls, trusted)
    faults = reading.faults
    if domain.certificate is None:
        faults = [*faults, Fault("certificate", "is not named, and none was added")]
    return Found(reading.pair, reading.terms, faults)
