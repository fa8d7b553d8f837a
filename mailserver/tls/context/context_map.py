"""The map from server names to certificates and contexts, and the terms of each name. Pure: no OpenSSL call.

`contexts.py` makes the contexts. `parse_server_name` normalizes the names that clients send.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, Literal

import attrs
from attrs import field, frozen
from OpenSSL import SSL

from mailserver.config.kinds import TlsVersion
from mailserver.tls.context.client_certificates import Demand
from mailserver.tls.keypair.pair import Pair

_NAME: Final = re.compile(rb"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


@lru_cache(maxsize=1024)
def parse_server_name(raw: bytes | None) -> str | None:
    """Parse a server name as sent: lower case, no final dot; None if it is invalid. Never raises."""
    if raw is None:
        return None
    bare = raw.removesuffix(b".")
    return bare.decode("ascii").lower() if _NAME.fullmatch(bare) else None


@frozen
class Terms:
    """The terms on which a host name is served, beside its pair."""

    demand: Demand = Demand()
    """Its demand for client certificates."""
    ciphers: str | None = None
    """TLS 1.2 suites; None for those of [tls]."""
    minimum_version: TlsVersion = "1.2"
    """Enforced after the version is negotiated."""
    second: Pair | None = None
    """A certificate with a key of the other type."""

    @property
    def resumable(self) -> tuple[bool, str | None, TlsVersion]:
        """The terms that tickets depend on: names that request certificates have no tickets.

        Another authority or revocation list changes nothing here.
        """
        return self.demand.certificates == "none", self.ciphers, self.minimum_version


Origin = Literal["file", "added", "acme", "last good", "rolled back", "self-signed"]
"""The origin of a served pair: the configured files, the administrator's command, an ACME authority; the last good pair or a
rollback instead of files; or a certificate made here because there was no other."""


@frozen
class ServedHost:
    """The certificates, terms and context of one host name."""

    host: str
    """The name or `*.name` in the configuration."""
    domain: str
    """Its mail domain."""
    pair: Pair
    terms: Terms
    context: SSL.Context = field(repr=False)
    origin: Origin = "file"

    @property
    def key(self) -> ContextKey:
        """The key of its context."""
        return context_key(self.pair, self.terms)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pair, and the second one if there is one."""
        return (self.pair,) if self.terms.second is None else (self.pair, self.terms.second)


ContextKey = tuple[bytes, bytes, Demand, str | None]
"""Identifies what a context serves."""


def context_key(pair: Pair, terms: Terms) -> ContextKey:
    """Return the key under which hosts share a context, also across reloads."""
    return pair.digest, terms.second.digest if terms.second else b"", terms.demand, terms.ciphers


@frozen
class Certificate:
    """The certificate of one host name, for people."""

    host: str
    domain: str
    fingerprint: str
    not_after: dt.datetime
    """The earlier end, if there are two certificates."""
    issuer: str
    origin: Origin
    is_default: bool


@frozen
class ContextMap:
    """Server name -> served host. Immutable, replaced as a whole."""

    by_host: Mapping[str, ServedHost]
    default: ServedHost | None

    def all(self) -> Iterator[ServedHost]:
        """Iterate over everything served; the default comes twice if it has a host of its own."""
        yield from self.by_host.values()
        if self.default is not None:
            yield self.default

    def find(self, name: str | None) -> ServedHost | None:
        """Find the exact name, then `*.parent` for one label. The name must come from `parse_server_name`."""
        if name is None:
            return None
        found = self.by_host.get(name)
        if found is None:
            _label, dot, parent = name.partition(".")
            found = self.by_host.get(f"*.{parent}") if dot else None
        return found

    def describe(self) -> list[Certificate]:
        """Describe what is served, by host name."""
        return [
            Certificate(
                serving.host,
                serving.domain,
                serving.pair.fingerprint,
                min(pair.not_after for pair in serving.pairs),
                serving.pair.issuer,
                serving.origin,
                self.default is not None and serving.host == self.default.host,
            )
            for _host, serving in sorted(self.by_host.items())
        ]

    def requires_certificate(self, domain: str) -> bool:
        """Do a mail domain's hosts all require a client certificate? With an empty domain: does every domain?

        The client chooses the host name that it asks for, so the terms of that name alone do not decide.
        """
        of_domains: dict[str, bool] = {}
        for each in self.by_host.values():
            if not domain or each.domain == domain:
                required = each.terms.demand.certificates == "required"
                of_domains[each.domain] = of_domains.get(each.domain, False) or required
        return bool(of_domains) and all(of_domains.values())

    def requires_named_user(self, domain: str) -> bool:
        """Must a mail domain's client certificates name the user? With an empty domain: must those of some domain?

        They need not with `client_user = "any"`.
        """
        return any(
            each.terms.demand.user != "any"
            for each in self.by_host.values()
            if each.terms.demand.authorities and (not domain or each.domain == domain)
        )

    def accepts_certificate(self, host: str | None, domain: str) -> bool:
        """May a certificate accepted for that host (`Handshake.host`) identify users of a mail domain (any, if empty)?

        It may if the domain would have accepted it: with the same authorities, field and revocation lists.
        """
        found = self.default if host is None else self.find(host)
        of_domains: dict[str, list[Demand]] = {}
        for each in self.by_host.values():
            if not domain or each.domain == domain:
                demands = of_domains.setdefault(each.domain, [])
                # The sites of a domain request no certificate.
                demands += [each.terms.demand] if each.terms.demand.authorities else []
        if found is None or not of_domains or not found.terms.demand.authorities:
            return False
        taken = attrs.evolve(found.terms.demand, certificates="none")
        return all(
            demands and all(attrs.evolve(demand, certificates="none") == taken for demand in demands)
            for demands in of_domains.values()
        )
