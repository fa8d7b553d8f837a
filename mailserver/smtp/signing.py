"""DKIM signatures of submitted mail: a message is signed once, in the name of its author's domain.

The signature is the uppermost field of what leaves submission, above our own Received: it is a trace field that covers
what stands below it (RFC 6376 3.5, 5.6), and Received is not signed, as servers on the way may change it (5.4.1). The next hop
and the copies for users here get the same octets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from mailserver.dkim.canonical import MessageDigest
from mailserver.dkim.key_file import SigningDomain
from mailserver.dkim.signer import CannotSign, DomainSigner, new_body_digest

LOG_INTERVAL: Final = 60.0
"""Seconds in which an unsigned message of a domain is logged once."""
_MOST_DOMAINS: Final = 1000
"""Domains whose last log line is remembered."""


class Unsigned(Exception):
    """A message is not signed; the argument says why. `log`: is it to be logged now?"""

    def __init__(self, domain: str, reason: str, *, log: bool) -> None:
        super().__init__(reason)
        self.domain = domain
        self.log = log


class MessageSigner:
    """The keys of all domains that sign."""

    def __init__(self, domains: Iterable[SigningDomain] = (), *, silent: Collection[str] = ()) -> None:
        """`silent`: domains whose mail is left unsigned on purpose, which is not logged."""
        self._keys = {each.domain.lower(): each for each in domains}
        self._signers: dict[str, DomainSigner] = {}
        self._silent = frozenset(silent)
        self._logged: dict[str, float] = {}

    def new_digest(self) -> MessageDigest | None:
        """The digest of a message that may have to be signed; None if no domain signs."""
        return MessageDigest(new_body_digest()) if self._keys else None

    def choose(self, domains: Iterable[str], now: float) -> str:
        """The first of the authors' domains that signs. Raises: Unsigned."""
        first = ""
        for each in domains:
            domain = each.lower()
            if domain in self._keys:
                return domain
            first = first or domain
        raise self._unsigned(first, "there are no keys of the domain in the From field", now)

    def sign(self, domain: str, header: bytes, body_hash: bytes, now: float) -> bytes:
        """The fields to put before the header, in the name of a domain of `choose`. Raises: Unsigned."""
        signer = self._signers.get(domain)
        if signer is None:
            # Loaded at the first message: most domains of a large server send nothing soon.
            signer = self._signers[domain] = DomainSigner(domain, self._keys[domain].keys)
        try:
            return signer.sign(header, body_hash, now)
        except CannotSign as error:
            raise self._unsigned(domain, str(error), now) from error

    def _unsigned(self, domain: str, reason: str, now: float) -> Unsigned:
        last = self._logged.get(domain)
        due = domain not in self._silent and (last is None or not 0 <= now - last < LOG_INTERVAL)
        if due:
            if len(self._logged) >= _MOST_DOMAINS:
                self._logged.clear()
            self._logged[domain] = now
        return Unsigned(domain, reason, log=due)
