"""OpenSSL contexts: one base for the life of the process, one for each certificate, and the choice by server name.

Problems, each tried:

- A context must not change once used, and the base must not be collected: its callback runs during handshakes, and a
  connection that was given another context holds the base no longer. So the policy keeps every base it ever made.
- `Connection.set_context` carries the key pair and the TLS 1.2 cipher list. It does not carry the least version, the
  suites of TLS 1.3, the groups and the tickets: those are the base's, the same for all names.
- Session tickets are sealed with keys of the base, so a session of one name resumes under another. So a name that
  demands certificates of its clients gives no tickets and takes none (`handshake.demand_certificate`), and what a name
  begins to demand makes a new base, under which the tickets that its clients have by then do not resume.

Rules: contexts are built of checked octets before the swap, never in a handshake; the map is replaced as a whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from attrs import field, frozen
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL
from OpenSSL._util import lib as _lib

from mailserver.config.model import Tls
from mailserver.tls.client_certificates import Demand, put_demand
from mailserver.tls.handshake import select_protocol, set_name_callback
from mailserver.tls.pair import BadPair, Fault, Pair

TICKET_LIFE: Final = 7200
"""Seconds for which a session may be resumed."""

_SESSION_CONTEXT: Final = b"mailserver"
"""The same everywhere: OpenSSL refuses to resume where it differs or is missing."""

_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_NOT_CBC: Final = re.compile(r"GCM|CHACHA20|CCM")

_NAME: Final = re.compile(rb"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


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

    @property
    def key(self) -> ContextKey:
        """What its context was made of."""
        return context_key(self.pair, self.terms)


ContextKey = tuple[bytes, Terms]
"""What is served by one context has the same."""


def context_key(pair: Pair, terms: Terms) -> ContextKey:
    """Hosts with the same share a context, and a changed configuration's context is the one that there is."""
    return pair.digest, terms


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


def setting_faults(tls: Tls) -> Iterator[tuple[str, str, str]]:
    """Key, value and what is wrong, of the settings that OpenSSL must know."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        context.set_cipher_list(tls.ciphers.encode())
    except SSL.Error:
        yield "ciphers", tls.ciphers, "OpenSSL knows no such cipher suites"
    else:
        suites = SSL.Connection(context, None).get_cipher_list()
        unwanted = [suite for suite in suites if not _NOT_CBC.search(suite)]
        unwanted += [suite for suite in suites if re.match(r"ADH|AECDH|PSK|SRP|.*NULL", suite)]
        static = [suite for suite in suites if not re.match(r"TLS_|ECDHE-|DHE-", suite) and suite not in unwanted]
        if unwanted:
            yield "ciphers", tls.ciphers, f"must name authenticated suites without CBC, not {unwanted[0]}"
        elif static:
            yield "ciphers", tls.ciphers, f"must name suites with forward secrecy (ECDHE), not {static[0]}"
        elif tls.minimum_version == "1.2" and all(suite.startswith("TLS_") for suite in suites):
            yield "ciphers", tls.ciphers, 'names no suite of TLS 1.2; say minimum_version = "1.3" instead'
    try:
        set_groups(SSL.Context(SSL.TLS_SERVER_METHOD), tls.groups)
    except ValueError:
        yield "groups", tls.groups, "OpenSSL knows no such groups"


def set_groups(context: SSL.Context, groups: str) -> None:
    """The key exchange groups. pyOpenSSL has no public call for them; its binding has. Raises: ValueError."""
    if not _lib.SSL_CTX_set1_curves_list(context._context, groups.encode()):  # noqa: SLF001 - see above
        while _lib.ERR_get_error():
            pass  # What a later call would take for its own error.
        raise ValueError(f"not groups: {groups!r}")


def make_base(tls: Tls, choose: Callable[[SSL.Connection], None]) -> SSL.Context:
    """The context every connection begins with; `choose` gives it another by name, or raises `handshake.Refused`.

    Raises: ValueError or SSL.Error for settings that `setting_faults` would name.
    """
    context = _settled(tls)
    set_name_callback(context, choose)
    return context


def make_context(pair: Pair, tls: Tls, terms: Terms = Terms()) -> SSL.Context:
    """The context of one certificate on some terms.

    Raises: BadPair when OpenSSL does not take what was judged good, such as a chain signed with SHA-1.
    """
    context = _settled(tls)
    key = serialization.load_pem_private_key(pair.key_pem.reveal(), None)
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
        raise BadPair([Fault("certificate", f"is refused by OpenSSL: {reasons}")]) from fault
    finally:
        os.close(descriptor)
    put_demand(context, terms.demand)
    return context


def _settled(tls: Tls) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[tls.minimum_version])
    context.set_cipher_list(tls.ciphers.encode())
    set_groups(context, tls.groups)
    # Every suite here is a good one, so the client's order counts: a phone without AES in hardware asks for ChaCha20.
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    # Tickets hold the whole session, so nothing is kept here for clients that may never come back.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(_SESSION_CONTEXT)
    context.set_timeout(TICKET_LIFE)
    # Buffers of idle connections are given back: 34 KiB each.
    context.set_mode(_lib.SSL_MODE_RELEASE_BUFFERS)
    context.set_alpn_select_callback(select_protocol)
    return context
