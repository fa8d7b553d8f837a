"""Certificate signing requests (PKCS #10, RFC 2986): made for another authority, and validated for our own."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from mailserver.tls.ca.authority import PrivateKey, PublicKey, Purpose, common_name
from mailserver.tls.ca.names import address_of, hosts_of

_BEGIN = b"-----BEGIN "


class BadSigningRequest(Exception):
    """A request that is refused; the text says why."""


@frozen
class SigningRequest:
    """A validated request. Its extensions are ignored."""

    public_key: PublicKey
    purpose: Purpose
    names: tuple[str, ...]
    """Host names, or the one address of a user."""


def make_request(key: PrivateKey, hosts: Sequence[str]) -> bytes:
    """Make a request in PEM for a server with these host names."""
    builder = x509.CertificateSigningRequestBuilder(common_name(hosts[0])).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def parse_request(octets: bytes) -> SigningRequest:
    """Validate a request in PEM or DER, signed by its own key. Raises: BadRequest, BadName."""
    load = x509.load_pem_x509_csr if _BEGIN in octets else x509.load_der_x509_csr
    try:
        request = load(octets)
        is_signed = request.is_signature_valid
        public_key = request.public_key()
        subject, extensions = request.subject, request.extensions
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise BadSigningRequest("is not a signing request (PKCS #10) in PEM or DER") from error
    if not is_signed:
        raise BadSigningRequest(
            "is not signed by the key that it names: it was changed, or its sender does not have the key"
        )
    try:
        alternatives = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        alternatives = []
    common = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    purpose, names = _names(alternatives, common)
    return SigningRequest(_validated_key(public_key), purpose, names)


def _validated_key(public_key: object) -> PublicKey:
    if isinstance(public_key, rsa.RSAPublicKey):
        if not 2048 <= public_key.key_size <= 8192:
            raise BadSigningRequest(f"has an RSA key of {public_key.key_size} bits; it must have 2048 to 8192")
        return public_key
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if public_key.curve.name not in ("secp256r1", "secp384r1"):
            raise BadSigningRequest(f"has a key on the curve {public_key.curve.name}; clients know P-256 and P-384")
        return public_key
    raise BadSigningRequest("has a key that is neither RSA nor ECDSA; mail clients know nothing else")


def _names(alternatives: Sequence[x509.GeneralName], common: Sequence[str]) -> tuple[Purpose, tuple[str, ...]]:
    hosts = [each.value for each in alternatives if isinstance(each, x509.DNSName)]
    addresses = [each.value for each in alternatives if isinstance(each, x509.RFC822Name)]
    if len(hosts) + len(addresses) < len(alternatives):
        raise BadSigningRequest(
            "asks for names that are neither host names nor mail addresses; IP addresses are not signed"
        )
    if hosts and addresses:
        raise BadSigningRequest(
            "asks for host names and mail addresses in one; a certificate is for a server or for a user"
        )
    if len(addresses) > 1:
        raise BadSigningRequest("asks for several mail addresses; a certificate names one user")
    if addresses:
        return "client", (address_of(addresses[0]),)
    names = hosts or common
    if not names:
        raise BadSigningRequest("names no host: it needs a subjectAltName")
    return "server", tuple(hosts_of(names))
