"""OpenSSL contexts: one base for the life of the process, one for each certificate, and the choice by server name.

Problems, each tried:

- A context must not change once used, and the base must not be collected: its callback runs during handshakes, and a
  connection that was given another context holds the base no longer. So the policy keeps every base it ever made.
- `Connection.set_context` carries the key pairs and the TLS 1.2 cipher list. It does not carry the versions, the suites
  of TLS 1.3, the groups, the order and the tickets: those are the base's. So there is a base for each set of such
  settings that a listener has (`settings`).
- Session tickets are sealed with keys of the base, the same for all names. A session is tied to its name by OpenSSL's
  session context (`handshake.ServerConnection`). What it was begun on is not in it: so a name that
  demands certificates of its clients gives no tickets and takes none (`handshake.demand_certificate`), and what a name
  begins to demand makes a new base, under which the tickets that its clients have by then do not resume.

Rules: contexts are built of checked octets before the swap, never in a handshake; the map is replaced as a whole.
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
from mailserver.tls.context.client_certificates import Demand, put_demand
from mailserver.tls.context.handshake import SESSION_CONTEXT, BaseContext, select_protocol, set_name_callback
from mailserver.tls.context.settings import Settings, settle
from mailserver.tls.keypair.pair import BadPair, Fault, Pair

_Context = TypeVar("_Context", bound=SSL.Context)

TICKET_LIFE: Final = 7200
"""Seconds for which a session may be resumed."""

_SSL_MODE_NO_AUTO_CHAIN: Final = 0x8
_SSL_MODE_RELEASE_BUFFERS: Final = 0x10
"""Of openssl/ssl.h; pyOpenSSL has no public names for them."""

_NAME: Final = re.compile(rb"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


@lru_cache(maxsize=1024)
def parse_server_name(raw: bytes | None) -> str | None:
    """A server name as the client sent it, in lower case without a final dot; None if it is none. Never raises."""
    if raw is None:
        return None
    bare = raw.removesuffix(b".")
    return bare.decode("ascii").lower() if _NAME.fullmatch(bare) else None


@frozen
class Terms:
    """On what terms a host name is served, beside its pair."""

    demand: Demand = Demand()
    """What it asks of its clients' certificates."""
    ciphers: str | None = None
    """Suites of TLS 1.2; None for those of [tls]."""
    minimum_version: TlsVersion = "1.2"
    """Held to after the version is agreed on."""
    second: Pair | None = None
    """A certificate with a key of the other type."""

    @property
    def resumable(self) -> tuple[bool, str | None, TlsVersion]:
        """On what the sessions rest that tickets bring back: where certificates are asked for there are no tickets.

        So another authority or revocation list there changes nothing of it.
        """
        return self.demand.certificates == "none", self.ciphers, self.minimum_version


Origin = Literal["file", "added", "acme", "last good", "rolled back", "self-signed"]
"""How a pair came to be served: from the files of the configuration, by the administrator's command, from an ACME
authority; instead of files that cannot be served, or that were rolled back; made here as there was no other."""


@frozen
class Serving:
    """What is served to one host name."""

    host: str
    """The name or `*.name` of the configuration."""
    domain: str
    """The mail domain it belongs to."""
    pair: Pair
    terms: Terms
    context: SSL.Context = field(repr=False)
    origin: Origin = "file"

    @property
    def key(self) -> ContextKey:
        """What its context was made of."""
        return context_key(self.pair, self.terms)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The one, and the second if there is one."""
        return (self.pair,) if self.terms.second is None else (self.pair, self.terms.second)


ContextKey = tuple[bytes, bytes, Demand, str | None]
"""What is served by one context has the same."""


def context_key(pair: Pair, terms: Terms) -> ContextKey:
    """Hosts with the same share a context, and a changed configuration's context is the one that there is."""
    return pair.digest, terms.second.digest if terms.second else b"", terms.demand, terms.ciphers


@frozen
class Certificate:
    """One host name, for people."""

    host: str
    domain: str
    fingerprint: str
    not_after: dt.datetime
    """Of the second one, where that ends sooner."""
    issuer: str
    origin: Origin
    is_default: bool


@frozen
class ContextMap:
    """Server name -> what is served. Replaced as a whole, never changed."""

    by_host: Mapping[str, Serving]
    default: Serving | None

    def all(self) -> Iterator[Serving]:
        """Everything served; the default twice, if it has a host of its own."""
        yield from self.by_host.values()
        if self.default is not None:
            yield self.default

    def find(self, name: str | None) -> Serving | None:
        """The exact name, then `*.parent` for one label, else None. The name is one of `parse_server_name`."""
        if name is None:
            return None
        found = self.by_host.get(name)
        if found is None:
            _label, dot, parent = name.partition(".")
            found = self.by_host.get(f"*.{parent}") if dot else None
        return found

    def describe(self) -> list[Certificate]:
        """What is served, by host name."""
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
    """The context every connection begins with; `choose` gives it another by name, or raises `handshake.Refused`.

    Raises: ValueError or SSL.Error for settings that `setting_faults` would name.
    """
    context = _settle(BaseContext(SSL.TLS_SERVER_METHOD), settings)
    context.naming = _settled(settings)
    set_name_callback(context, choose)
    return context


def make_context(pair: Pair, settings: Settings, terms: Terms = Terms()) -> SSL.Context:
    """The context of one certificate, or two of different key types, on some terms.

    Raises: BadPair when OpenSSL does not take what was judged good, such as a chain signed with SHA-1.
    """
    context = _settled(settings if terms.ciphers is None else attrs.evolve(settings, ciphers=terms.ciphers))
    _put_pair(context, pair, "certificate")
    if terms.second is not None:
        _put_pair(context, terms.second, "second_certificate")
    put_demand(context, terms.demand)
    return context


def _put_pair(context: SSL.Context, pair: Pair, name: str) -> None:
    """A chain and its key; OpenSSL has a place for one of each key type. Raises: BadPair."""
    # It was validated when it was judged, which takes long for RSA.
    key = serialization.load_pem_private_key(pair.key_pem.reveal(), None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    # What was judged is what is loaded: the octets, not the file, which may be another by now.
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


def _settled(settings: Settings) -> SSL.Context:
    return _settle(SSL.Context(SSL.TLS_SERVER_METHOD), settings)


def _settle(context: _Context, settings: Settings) -> _Context:
    settle(context, settings)
    # Tickets hold the whole session, so nothing is kept here for clients that may never come back.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(SESSION_CONTEXT)
    context.set_timeout(TICKET_LIFE)
    # Buffers of idle connections are given back: 34 KiB each. A chain is sent as it was judged: none is looked for among
    # the authorities of clients.
    context.set_mode(_SSL_MODE_RELEASE_BUFFERS | _SSL_MODE_NO_AUTO_CHAIN)
    context.set_alpn_select_callback(select_protocol)
    return context
