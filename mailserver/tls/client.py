"""TLS towards the next hop: its host name is verified, by service-identity, against authorities we trust."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, TLSVersion, optionsForClientTLS, platformTrust, trustRootFromCertificates

from mailserver.config.model import Relay
from mailserver.tls.pair import read_authorities


def client_creator(relay: Relay) -> IOpenSSLClientConnectionCreator:
    """Makes connections that fail unless the hop shows a valid certificate for `relay.host`; TLS 1.2 at least.

    Raises: BadPair when `ca_file` cannot be used.
    """
    if relay.ca_file is None:
        trust = platformTrust()
    else:
        authorities = read_authorities(relay.ca_file)
        trust = trustRootFromCertificates([Certificate.loadPEM(one.public_bytes(Encoding.PEM)) for one in authorities])
    return optionsForClientTLS(
        relay.host, trustRoot=trust, extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2}
    )
