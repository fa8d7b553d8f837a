"""OpenSSL contexts: one base for each set of settings, one for each certificate, and the choice by server name.

Problems, each tried:

- A context must not change once used, and a base must not be freed: its callback runs during handshakes, and a connection
  that was given another context no longer refers to its base. So the policy keeps every base.
- `Connection.set_context` transfers the key pairs and the TLS 1.2 cipher list. The versions, TLS 1.3 suites, groups, cipher
  order and tickets remain the base's. So each set of such settings that a listener has (`settings`) has its base.
- Session tickets are encrypted with keys of the base, the same for all names. OpenSSL's session context ties a session to
  its name (`handshake.ServerConnection`), but not to the terms of that name. So a name that demands client certificates
  issues and accepts no tickets (`handshake.request_certificate`). When a name begins to demand them there is a new base,
  under which its clients' tickets do not resume.

Rules: contexts are built of validated octets before the swap, never in a handshake; the map is replaced as a whole.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, Literal, TypeVar

import attrs
from attrs import field, frozen
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from mailserver.config.kinds import TlsVersion
from mailserver.tls.context.client_certificates import Demand, apply_demand
from mailserver.tls.context.handshake import SESSION_CONTEXT, BaseContext, select_protocol, set_name_callback
from mailserver.tls.context.settings import Settings, apply_settings
from mailserver.tls.keypair.pair import BadPair, Fault, Pair

_Context = TypeVar("_Context", bound=SSL.Context)

TICKET_LIFE: Final = 7200
"""Seconds for which a session may be resumed."""

_SSL_MODE_NO_AUTO_CHAIN: Final = 0x8
_SSL_MODE_RELEASE_BUFFERS: Final = 0x10
"""From openssl/ssl.h; pyOpenSSL has no public names for them."""

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
"""Where a served pair came from: the configured files, the administrator's command, an ACME authority; the last good pair or a
rollback instead of files; or a certificate made here because there was no other."""


@frozen
class ServedHost:
    """What one host name is served with."""

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
    """Server name -> what is served. Immutable, replaced as a whole."""

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


def make_base(settings: Settings, choose: Callable[[SSL.Connection], None]) -> BaseContext:
    """Make the context that connections begin with; `choose` replaces it by name, or raises `handshake.HandshakeRefused`.

    Raises: ValueError or SSL.Error for settings that `setting_faults` would report.
    """
    context = _configure(BaseContext(SSL.TLS_SERVER_METHOD), settings)
    context.naming = _new_context(settings)
    set_name_callback(context, choose)
    return context


def make_context(pair: Pair, settings: Settings, terms: Terms = Terms()) -> SSL.Context:
    """Make the context of one certificate, or of two with different key types.

    Raises: BadPair if OpenSSL refuses a validated pair, such as a chain signed with SHA-1.
    """
    context = _new_context(settings if terms.ciphers is None else attrs.evolve(settings, ciphers=terms.ciphers))
    _put_pair(context, pair, "certificate")
    if terms.second is not None:
        _put_pair(context, terms.second, "second_certificate")
    apply_demand(context, terms.demand)
    return context


def _put_pair(context: SSL.Context, pair: Pair, name: str) -> None:
    """Load a chain and its key; a context holds one of each key type. Raises: BadPair."""
    # The key was checked when the pair was validated, which takes long for RSA.
    key = serialization.load_pem_private_key(pair.key_pem.reveal(), None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    # Load the validated octets, not the file, which may have changed by now.
    descriptor = os.memfd_create("certificate")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pair.chain_pem)
        context.use_certificate_chain_file(f"/proc/self/fd/{descriptor}")
        context.use_privatekey(key)
    except SSL.Error as fault:
        reasons = ", ".join(dict.fromkeys(str(entry[-1]) for entry in fault.args[0] if entry[-1])) or "no reason given"
        raise BadPair([Fault(name, f"is refused by OpenSSL: {reasons}")]) from fault
    finally:
        os.close(descriptor)


def _new_context(settings: Settings) -> SSL.Context:
    return _configure(SSL.Context(SSL.TLS_SERVER_METHOD), settings)


def _configure(context: _Context, settings: Settings) -> _Context:
    apply_settings(context, settings)
    # Tickets hold the whole session: nothing is cached here for clients that may never return.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(SESSION_CONTEXT)
    context.set_timeout(TICKET_LIFE)
    # Release the buffers of idle connections, 34 KiB each. Send the chain as it was validated: do not complete it from
    # the clients' authorities.
    context.set_mode(_SSL_MODE_RELEASE_BUFFERS | _SSL_MODE_NO_AUTO_CHAIN)
    context.set_alpn_select_callback(select_protocol)
    return context
