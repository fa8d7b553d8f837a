"""CMS signatures (RFC 5652) with a served certificate."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from mailserver.tls.keypair.pair import Pair


def sign(pair: Pair, octets: bytes) -> bytes:
    """Make SignedData in DER with the octets, the certificate and its chain."""
    certificate, *chain = x509.load_pem_x509_certificates(pair.chain_pem)
    key = serialization.load_pem_private_key(
        # The pair was validated when it was loaded; checking the key again would take longer than the signature.
        pair.key_pem.reveal(),
        None,
        unsafe_skip_rsa_key_validation=True,
    )
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(octets).add_signer(certificate, key, hashes.SHA256())
    for each in chain:
        builder = builder.add_certificate(each)
    return builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
