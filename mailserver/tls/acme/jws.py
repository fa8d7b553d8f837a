"""Requests to an ACME authority signed by a certificate's own key (RFC 7515, RFC 8555 6.2), in the process that reads keys."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from mailserver.types import Secret

_CURVES: Final = {"secp256r1": ("P-256", "ES256", 32), "secp384r1": ("P-384", "ES384", 48)}
"""Curves that certificates may have here (`pair`): name, algorithm (RFC 7518 3.1), octets of a coordinate."""
_HASHES: Final = {"ES256": hashes.SHA256, "ES384": hashes.SHA384}


def signed(key_pem: Secret, address: str, nonce: str, payload: dict[str, Any]) -> str:
    """Make a JWS in JSON with the public key in its header (RFC 8555 6.2: `jwk`)."""
    key = serialization.load_pem_private_key(key_pem.reveal(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else _CURVES[key.curve.name][1]
    header = {"alg": algorithm, "jwk": jwk_of(key.public_key()), "nonce": nonce, "url": address}
    protected, body = (base64url(json.dumps(each).encode()) for each in (header, payload))
    signature = _signature(key, algorithm, f"{protected}.{body}".encode())
    return json.dumps({"protected": protected, "payload": body, "signature": base64url(signature)})


def jwk_of(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> dict[str, str]:
    """Encode a public key as a JWK (RFC 7517), with the members of its thumbprint alone (RFC 7638 3.2)."""
    if isinstance(key, rsa.RSAPublicKey):
        of_rsa = key.public_numbers()
        return {"e": _number(of_rsa.e), "kty": "RSA", "n": _number(of_rsa.n)}
    name, _algorithm, octets = _CURVES[key.curve.name]
    numbers = key.public_numbers()
    return {"crv": name, "kty": "EC", "x": _number(numbers.x, octets), "y": _number(numbers.y, octets)}


def base64url(octets: bytes) -> str:
    """Encode without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _signature(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: str, octets: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(octets, padding.PKCS1v15(), hashes.SHA256())
    length = _CURVES[key.curve.name][2]
    halves = decode_dss_signature(key.sign(octets, ec.ECDSA(_HASHES[algorithm]())))
    return b"".join(half.to_bytes(length, "big") for half in halves)


def _number(number: int, octets: int | None = None) -> str:
    return base64url(number.to_bytes(octets or (number.bit_length() + 7) // 8, "big"))
