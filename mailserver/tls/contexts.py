"""OpenSSL contexts: one base for the life of the process, one for each certificate, and the choice by server name.

Problems, each tried:

- A context must not change once used, and the base must not be collected: its callback runs during handshakes, and a
  connection that was given another context holds the base no longer. So the policy keeps every base it ever made.
- `Connection.set_context` carries the key pair and the TLS 1.2 cipher list. It does not carry the least version, the
  suites of TLS 1.3, the groups and the tickets: those are the base's, the same for all names.
- Session tickets are sealed with keys of the base, so a session of one name resumes under another. That is right only
  because all names demand the same; a demand of one name (client certificates) would need a base of its own.
- A name is refused by raising in the callback: OpenSSL then sends alert unrecognized_name (RFC 6066 3), and pyOpenSSL
  shows the exception to `sys.excepthook`, hence `quiet_refusals`.

Rules: contexts are built of checked octets before the swap, never in a handshake; the map is replaced as a whole.
"""

from __future__ import annotations

import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from attrs import field, frozen
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL
from OpenSSL._util import lib as _lib

from mailserver.config.model import Tls
from mailserver.tls.pair import BadPair, Fault, Pair

TICKET_LIFE: Final = 7200
"""Seconds for which a session may be resumed."""

_SESSION_CONTEXT: Final = b"mailserver"
"""The same everywhere: OpenSSL refuses to resume where it differs or is missing."""

_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_NOT_CBC: Final = re.compile(r"GCM|CHACHA20|CCM")

_NAME: Final = re.compile(rb"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


class UnrecognizedName(Exception):
    """Raised in the callback to have OpenSSL refuse a server name; `quiet_refusals` keeps it off standard error."""


def parse_server_name(raw: bytes | None) -> str | None:
    """A server name as the client sent it, in lower case without a final dot; None if it is none. Never raises."""
    if raw is None:
        return None
    bare = raw.removesuffix(b".")
    return bare.decode("ascii").lower() if _NAME.fullmatch(bare) else None


@frozen
class Serving:
    """What is served to one host name."""

    host: str
    """The name or `*.name` of the configuration."""
    domain: str
    """The mail domain it belongs to."""
    pair: Pair
    context: SSL.Context = field(repr=False)


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
    """The context every connection begins with; `choose` gives it another by name, or raises UnrecognizedName.

    Raises: ValueError or SSL.Error for settings that `setting_faults` would name.
    """
    context = _settled(tls)
    context.set_tlsext_servername_callback(choose)
    return context


def make_context(pair: Pair, tls: Tls) -> SSL.Context:
    """The context of one certificate.

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
    return context


def quiet_refusals() -> None:
    """Keep UnrecognizedName from `sys.excepthook`; all else goes where it went. May be called again."""
    before = sys.excepthook
    if getattr(before, "refusals_are_quiet", False):
        return

    def hook(kind: type[BaseException], fault: BaseException, trace: types.TracebackType | None) -> Any:
        if not issubclass(kind, UnrecognizedName):
            before(kind, fault, trace)

    hook.refusals_are_quiet = True  # type: ignore[attr-defined]
    sys.excepthook = hook
