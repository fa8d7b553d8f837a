"""OpenSSL contexts: one base for each set of settings, and one for each certificate.

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

import os
from collections.abc import Callable
from typing import Final, TypeVar

import attrs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from mailserver.tls.context.client_certificates import apply_demand
from mailserver.tls.context.context_map import Terms
from mailserver.tls.context.handshake import SESSION_CONTEXT, BaseContext, select_protocol, set_name_callback
from mailserver.tls.context.settings import Settings, apply_settings
from mailserver.tls.keypair.pair import BadPair, Pair
from mailserver.tls.keypair.pem import Fault

_Context = TypeVar("_Context", bound=SSL.Context)

TICKET_LIFE: Final = 7200
"""Seconds for which a session may be resumed."""

_SSL_MODE_NO_AUTO_CHAIN: Final = 0x8
_SSL_MODE_RELEASE_BUFFERS: Final = 0x10
"""From openssl/ssl.h; pyOpenSSL has no public names for them."""


def make_base(settings: Settings, choose: Callable[[SSL.Connection], None]) -> BaseContext:
    """Make the context that connections begin with; `choose` replaces it by name, or raises `handshake.HandshakeRefused`.

    Raises: ValueError or SSL.Error for settings that `setting_faults` would report.
    """
    context = _configure(BaseContext(SSL.TLS_SERVER_METHOD), settings)
    context.naming = _new_context(settings)
    set_name_callback(context, choose)
    return context


def make_context(pair: Pair, settings: Settings, terms: Terms | None = None) -> SSL.Context:
    """Make the context of one certificate, or of two with different key types.

    Raises: BadPair if OpenSSL refuses a validated pair, such as a chain signed with SHA-1.
    """
    terms = terms or Terms()
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
