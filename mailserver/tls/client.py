"""TLS towards the next hop: service-identity verifies its host name, OpenSSL its chain."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailserver.config.model import Relay
from mailserver.tls.keypair.key_password import read_password_file
from mailserver.tls.keypair.pair import BadPair, load_client_pair, read_authorities
from mailserver.tls.keypair.pem import Fault, PrivateKey

_VERSIONS = {"1.2": TLSVersion.TLSv1_2, "1.3": TLSVersion.TLSv1_3}


def client_creator(relay: Relay) -> IOpenSSLClientConnectionCreator:
    """Make a connection creator that requires a valid certificate for `relay.host`, unless verification is off.

    Raises: BadPair if a file cannot be used.
    """
    options: dict[str, Any] = {"raiseMinimumTo": _VERSIONS[relay.minimum_version]}
    if (own := _own_pair(relay)) is not None:
        (first, *chain), key = own
        options |= {"certificate": first, "privateKey": key, "extraCertChain": chain}
    if relay.verification == "none":
        return _Unverified(relay.host, CertificateOptions(**options).getContext())
    if relay.ca_file is None:
        trust = platformTrust()
    else:
        authorities = read_authorities(relay.ca_file)
        trust = trustRootFromCertificates([Certificate.loadPEM(one.public_bytes(Encoding.PEM)) for one in authorities])
    return optionsForClientTLS(relay.host, trustRoot=trust, extraCertificateOptions=options)


@cache
def _any_certificate() -> SSL.Context:
    return CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2).getContext()


def any_certificate_creator(host: str) -> IOpenSSLClientConnectionCreator:
    """Make a connection creator for a host of a domain, whose certificate is not verified (RFC 7435)."""
    return _Unverified(host, _any_certificate())


@lru_cache(maxsize=64)
def valid_certificate_creator(host: str) -> IOpenSSLClientConnectionCreator:
    """Make a connection creator that requires a certificate for that name or address, by the system's authorities."""
    options = {"raiseMinimumTo": TLSVersion.TLSv1_2}
    return optionsForClientTLS(host, trustRoot=platformTrust(), extraCertificateOptions=options)


def client_faults(relay: Relay) -> list[Fault]:
    """Validate the files of the next hop; the faults' keys are those of [submission.relay]."""
    faults: list[Fault] = []
    if relay.ca_file is not None:
        try:
            read_authorities(relay.ca_file)
        except BadPair as bad:
            faults += [Fault("ca_file", fault.reason) for fault in bad.faults]
    try:
        _own_pair(relay)
    except BadPair as bad:
        faults += bad.faults
    if relay.verification == "none":
        reason = "exposes mail and password to anybody on the path; ca_file can name a private authority"
        faults.append(Fault("verification", reason, warning=True))
    return faults


def _own_pair(relay: Relay) -> tuple[list[x509.Certificate], PrivateKey] | None:
    """Read the certificate that we show to the hop, if any. Raises: BadPair."""
    if relay.certificate is None or relay.key is None:
        return None
    password = None
    if relay.key_password_file is not None:
        faults: list[Fault] = []
        password = read_password_file(relay.key_password_file, faults)
        if password is None:
            raise BadPair(faults)
    try:
        return load_client_pair(relay.certificate, relay.key, password)
    except BadPair as bad:
        # key_password_command exists for the keys of domains alone.
        raise BadPair(
            [attrs.evolve(each, reason=each.reason.replace(" or key_password_command", "")) for each in bad.faults]
        ) from bad


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Connection creator for a hop whose certificate is not verified."""

    def __init__(self, host: str, context: SSL.Context) -> None:
        self._name = None if host.replace(".", "").isdigit() or ":" in host else host
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002, N802, N803
        """See IOpenSSLClientConnectionCreator."""
        connection = SSL.Connection(self._context, None)
        if self._name is not None:
            # RFC 6066 3: no addresses.
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection
