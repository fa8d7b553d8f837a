"""SCRAM-SHA-256 and SCRAM-SHA-1, each with -PLUS (RFC 5802, RFC 7677; channel binding tls-exporter, RFC 9266).

The client proves that it knows the password without sending it, and the server that it has the keys. With -PLUS both
prove that they see the same TLS connection. A client that supports channel binding and was not offered it sends `y`: where it was
offered, an attacker has removed it from the list, and the exchange fails (RFC 5802 6).

Everything that needs no key is checked before the proof: the answer to a message that breaks a rule discloses nothing of the
password.
"""

from __future__ import annotations

import binascii
import enum
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

from mailserver.sasl.mechanism import Challenge, Done, Failed, NeedKeys, ScramProof, Step
from mailserver.sasl.scram_keys import HASHES, ScramKeys
from mailserver.types import Secret

MAX_MESSAGE = 4096
"""Longest message taken, octets."""
MAX_NONCE = 256
"""Longest nonce of a client taken, characters."""
BINDING = "tls-exporter"
"""The one type of channel binding here (RFC 9266)."""

_SASLNAME = re.compile(r"(?:[^=,\0]|=2C|=3D)+")
_NONCE = re.compile(r"[!-+\--~]+")
_EXTENSION = re.compile(r"[A-Za-z]=[^\0]+")

_STRIPPED = (
    "the client supports channel binding but did not see that it was offered: a man in the middle may have changed the list of"
    " mechanisms. If a proxy of your own terminates TLS, remove the -PLUS mechanisms from [auth] mechanisms"
)
_OTHER_BINDING = (
    "the client is not the peer of this TLS connection: a man in the middle may have a connection with each side. If a"
    " proxy of your own terminates TLS, remove the -PLUS mechanisms from [auth] mechanisms"
)


class _Expects(enum.Enum):
    FIRST = "client-first-message"
    KEYS = "the stored keys"
    FINAL = "client-final-message"
    NOTHING = "nothing"


class _Refused(Exception):
    """The argument is the reason of a Failed."""


class Scram:
    """One exchange."""

    def __init__(
        self,
        hash_name: str,
        *,
        binding: bytes | None = None,
        plus_offered: bool = False,
        make_nonce: Callable[[], str] = lambda: secrets.token_urlsafe(18),
    ) -> None:
        """`hash_name` is one of HASHES; with a `binding`, the octets of tls-exporter, it is the -PLUS mechanism.

        `plus_offered`: could the client have seen a -PLUS mechanism on this connection?
        """
        self._hash_name = hash_name
        self._algorithm = HASHES[hash_name]
        self._binding = binding
        self._plus_offered = plus_offered
        self._make_nonce = make_nonce
        self._expects = _Expects.FIRST
        self._header = self._name = self._authorization = ""
        self._client_first = self._server_first = self._nonce = ""
        self._keys: ScramKeys | None = None

    def step(self, response: bytes | None) -> Step:
        """Take client-first-message, then (the keys in between) client-final-message."""
        if response is None and self._expects is _Expects.FIRST:
            return Challenge(b"")
        expected, self._expects = self._expects, _Expects.NOTHING
        try:
            text = _text(response or b"")
            if expected is _Expects.FIRST:
                return self._first(text)
            if expected is _Expects.FINAL:
                return self._final(text)
        except _Refused as refused:
            return Failed(str(refused))
        return Failed("the exchange is over")

    def _first(self, text: str) -> NeedKeys:
        fields = text.split(",", 2)
        if len(fields) != 3:
            raise _Refused("this is no client-first-message of SCRAM (RFC 5802 7)")
        flag, authorization, bare = fields
        self._check_flag(flag)
        self._header = f"{flag},{authorization},"
        if authorization:
            if not authorization.startswith("a="):
                raise _Refused("expected a= or nothing between the first two commas")
            self._authorization = _name(authorization[2:])
        attributes = bare.split(",")
        if attributes[0].startswith("m="):
            raise _Refused("the client demands an extension (m=), and there is none")
        if len(attributes) < 2 or not attributes[0].startswith("n=") or not attributes[1].startswith("r="):
            raise _Refused("expected n= and r= in client-first-message")
        _check_extensions(attributes[2:])
        self._name = _name(attributes[0][2:])
        nonce = attributes[1][2:]
        if len(nonce) > MAX_NONCE or not _NONCE.fullmatch(nonce):
            raise _Refused(f"a nonce has 1 to {MAX_NONCE} visible characters and no comma")
        self._client_first = bare
        self._nonce = nonce + self._make_nonce()
        self._expects = _Expects.KEYS
        return NeedKeys(self._name, self._hash_name, self._take_keys)

    def _check_flag(self, flag: str) -> None:
        """The binding that the client chooses (RFC 5802 6)."""
        kind, equals, binding = flag.partition("=")
        if kind not in {"n", "y", "p"} or bool(equals) != (kind == "p"):
            raise _Refused("client-first-message begins with n, y or p=")
        if kind == "p" and binding != BINDING:
            # The text is the client's: it goes to the log, where it is escaped.
            raise _Refused(f"the client binds to {binding[:40]!r}; only {BINDING} (RFC 9266) is understood")
        if kind == "p" and self._binding is None:
            raise _Refused("the client binds to TLS in a mechanism without -PLUS")
        if kind != "p" and self._binding is not None:
            raise _Refused("the client does not bind to TLS in a -PLUS mechanism")
        if kind == "y" and self._plus_offered:
            raise _Refused(_STRIPPED)

    def _take_keys(self, keys: ScramKeys) -> Challenge:
        assert self._expects is _Expects.KEYS
        self._expects = _Expects.FINAL
        self._keys = keys
        self._server_first = f"r={self._nonce},s={_base64(keys.salt)},i={keys.rounds}"
        return Challenge(self._server_first.encode("ascii"))

    def _final(self, text: str) -> Done:
        without_proof, comma, encoded = text.rpartition(",p=")
        attributes = without_proof.split(",")
        if not comma or len(attributes) < 2 or not attributes[0].startswith("c=") or not attributes[1].startswith("r="):
            raise _Refused("expected c=, r= and, at the end, p= in client-final-message")
        _check_extensions(attributes[2:])
        self._check_binding(_octets(attributes[0][2:], "c="))
        if attributes[1][2:] != self._nonce:
            raise _Refused("the nonce is not that of this exchange: the message is an old one, or another exchange's")
        proof = _octets(encoded, "p=")
        if len(proof) != hashlib.new(self._algorithm).digest_size:
            raise _Refused("the proof has the wrong length")
        keys = self._keys
        assert keys is not None
        signed = f"{self._client_first},{self._server_first},{without_proof}".encode()
        fits = self._fits(proof, signed, keys.stored_key)
        credential, server_key = "", keys.server_key
        # All are tried, so that the time does not reveal which one fits.
        for other in keys.others:
            if self._fits(proof, signed, other.stored_key):
                fits, credential, server_key = True, other.credential, other.server_key
        verifier = _base64(hmac.digest(server_key, signed, self._algorithm))
        claim = ScramProof(
            self._name, self._hash_name, keys, fits, Secret(proof), self._authorization, credential=credential
        )
        return Done(claim, f"v={verifier}".encode("ascii"))

    def _fits(self, proof: bytes, signed: bytes, stored_key: bytes) -> bool:
        """Does the proof belong to the password of this key?"""
        signature = hmac.digest(stored_key, signed, self._algorithm)
        client_key = bytes(left ^ right for left, right in zip(proof, signature, strict=True))
        return hmac.compare_digest(hashlib.new(self._algorithm, client_key).digest(), stored_key)

    def _check_binding(self, given: bytes) -> None:
        header = self._header.encode("utf-8")
        if given == header + (self._binding or b""):
            return
        if self._binding is not None and given.startswith(header):
            raise _Refused(_OTHER_BINDING)
        raise _Refused("c= does not repeat the start of client-first-message: a man in the middle may have changed it")


def _text(message: bytes) -> str:
    if len(message) > MAX_MESSAGE:
        raise _Refused(f"the message is longer than {MAX_MESSAGE} octets")
    if b"\0" in message:
        raise _Refused("the message contains NUL")
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError:
        raise _Refused("the message is not UTF-8") from None


def _name(saslname: str) -> str:
    """RFC 5802 5.1: a comma is =2C, an equals sign =3D, and no other = stands in it."""
    if not _SASLNAME.fullmatch(saslname):
        raise _Refused("a name is not empty, and = and the comma in it are written =3D and =2C")
    return saslname.replace("=2C", ",").replace("=3D", "=")


def _check_extensions(attributes: list[str]) -> None:
    """Ignore extensions that are not mandatory (RFC 5802 5.1)."""
    if not all(_EXTENSION.fullmatch(each) for each in attributes):
        raise _Refused("an attribute is a letter, = and a value")
    if any(each.startswith("m=") for each in attributes):
        raise _Refused("the client demands an extension (m=), and there is none")


def _octets(text: str, what: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _Refused(f"what stands behind {what} is not base64") from None


def _base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode("ascii")
