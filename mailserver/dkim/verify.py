"""Verification of DKIM signatures (RFC 6376 6.1, RFC 8463, RFC 8301). The caller asks DNS for `Signature.record_name`.

What a stranger can make costly is bounded: the number of signatures, the length of each, names in `h=`, sizes and
exponents of keys.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias, cast

from attrs import frozen

from mailserver.dkim.canonical import BodyDigest, Form, HeaderField, split_header
from mailserver.dkim.keys import Algorithm, BadKey, BadTags, is_signed, parse_record, parse_tags, record_name

MOST_SIGNATURES: Final = 8
"""Signatures of one message that are verified, the uppermost."""
MOST_OCTETS: Final = 32 * 1024
"""Octets of one DKIM-Signature field."""
MOST_NAMES: Final = 500
"""Names in `h=`."""
CLOCK_SKEW: Final = 300
"""Seconds by which clocks may differ (RFC 6376 3.5, t=)."""

Verdict: TypeAlias = Literal["pass", "fail", "policy", "permerror", "neutral"]
"""Results of RFC 8601 2.7.1 that need no DNS; temperror is the caller's."""

_NAME = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)
_SIGNATURE_VALUE = re.compile(rb"\A([^:]*+:(?:[^;]*;)*?[ \t\r\n]*+b[ \t\r\n]*+=)[^;]*")
_WHITE = re.compile(r"[ \t\r\n]+")


@frozen
class Result:
    """The result for one signature."""

    verdict: Verdict
    reason: str
    """Why it is none; "" for a pass."""
    domain: str = ""
    selector: str = ""
    algorithm: str = ""


@frozen
class Signature:
    """A well-formed DKIM-Signature field."""

    field: HeaderField
    algorithm: Algorithm
    domain: str
    """d=, in lower case."""
    selector: str
    identity: str
    """The domain of i=, in lower case."""
    header_form: Form
    body_form: Form
    names: tuple[bytes, ...]
    """h=, in lower case."""
    body_hash: bytes
    signature: bytes
    length: int | None
    """l=."""

    @property
    def record_name(self) -> str:
        """The DNS name of its key."""
        return record_name(self.selector, self.domain)

    def new_body_digest(self) -> BodyDigest:
        """The digest of the body that `check` needs."""
        return BodyDigest(self.body_form, self.length)

    def result(self, verdict: Verdict, reason: str = "") -> Result:
        """Make a result for this signature."""
        return Result(verdict, reason, self.domain, self.selector, f"{self.algorithm}-sha256")


class BadSignature(Exception):
    """A DKIM-Signature field is malformed, or has expired; the argument says why."""


def signatures(fields: Sequence[HeaderField], now: float) -> list[Signature | Result]:
    """The signatures of a message in the order of its header, each well-formed or with its result."""
    found: list[Signature | Result] = []
    for field in fields:
        if field.name == b"dkim-signature":
            try:
                found.append(parse_signature(field, now))
            except BadSignature as error:
                found.append(Result("permerror", str(error)))
            if len(found) == MOST_SIGNATURES:
                break
    return found


def parse_signature(field: HeaderField, now: float) -> Signature:
    """Parse a DKIM-Signature field (RFC 6376 3.5, 6.1.1). Raises: BadSignature."""
    if len(field.raw) > MOST_OCTETS:
        raise BadSignature("the signature is too long")
    try:
        tags = parse_tags(field.raw.partition(b":")[2].decode("ascii"))
    except (BadTags, UnicodeDecodeError) as error:
        raise BadSignature("the signature is no list of tags") from error
    if missing := [name for name in ("v", "a", "b", "bh", "d", "h", "s") if name not in tags]:
        raise BadSignature(f"the signature has no {missing[0]}=")
    if tags["v"] != "1":
        raise BadSignature("the signature's version is not 1")
    algorithm, _dash, digest = tags["a"].partition("-")
    if algorithm not in ("rsa", "ed25519") or digest != "sha256":
        raise BadSignature("the signature's algorithm is neither rsa-sha256 nor ed25519-sha256")
    forms = tags.get("c", "simple/simple").split("/")
    forms += ["simple"] * (2 - len(forms))
    if len(forms) != 2 or not {*forms} <= {"simple", "relaxed"}:
        raise BadSignature("the signature's canonical form is unknown")
    domain, selector = tags["d"].lower().rstrip("."), tags["s"]
    if not (_NAME.fullmatch(domain) and _NAME.fullmatch(selector) and len(domain) + len(selector) < 240):
        raise BadSignature("the signature's d= or s= is no name")
    identity = tags.get("i", f"@{domain}").rpartition("@")[2].lower().rstrip(".")
    if identity != domain and not identity.endswith(f".{domain}"):
        raise BadSignature("the signature's i= is not within its d=")
    names = tuple(name.strip(" \t\r\n").lower().encode("ascii") for name in tags["h"].split(":"))
    if b"from" not in names or len(names) > MOST_NAMES:
        raise BadSignature("the signature does not name From in h=, or names too much")
    if "dns/txt" not in [method.strip(" \t\r\n") for method in tags.get("q", "dns/txt").split(":")]:
        raise BadSignature("the signature's key is not in DNS")
    made, expires, length = (_number(tags, tag) for tag in ("t", "x", "l"))
    if expires is not None and (expires < now - CLOCK_SKEW or (made is not None and expires < made)):
        raise BadSignature("the signature has expired")
    return Signature(
        field,
        cast("Algorithm", algorithm),
        domain,
        selector,
        identity,
        cast("Form", forms[0]),
        cast("Form", forms[1]),
        names,
        _base64(tags, "bh"),
        _base64(tags, "b"),
        length,
    )


def check(signature: Signature, fields: Sequence[HeaderField], body: BodyDigest, records: Sequence[str]) -> Result:
    """Verify a signature (RFC 6376 6.1.2, 6.1.3). `body` has got the whole body; `records` are the TXT records of the key."""
    if not records:
        return signature.result("permerror", "there is no key")
    if len(records) > 1:
        return signature.result("permerror", "there is more than one key")
    try:
        record = parse_record(records[0])
    except BadKey as error:
        return signature.result("permerror", f"the key {error}")
    if record.algorithm != signature.algorithm:
        return signature.result("permerror", "the key is of another type than the signature")
    if record.strict and signature.identity != signature.domain:
        return signature.result("permerror", "the key is not for subdomains, as in the signature's i=")
    if body.digest() != signature.body_hash:
        return signature.result("fail", "the body was changed")
    if signature.length is not None and signature.length > body.length:
        return signature.result("permerror", "the signature's l= is larger than the body")
    if not is_signed(record.key, signature.signature, signed_octets(signature, fields)):
        return signature.result("fail", "the header was changed, or the key is another")
    if signature.length is not None and signature.length < body.length:
        return signature.result("policy", "the signature leaves out the body's end, by l=")
    return signature.result("pass")


def signed_octets(signature: Signature, fields: Sequence[HeaderField]) -> bytes:
    """The octets that a signature signs (RFC 6376 3.7)."""
    left: dict[bytes, list[HeaderField]] = {}
    for field in fields:
        if field is not signature.field:
            left.setdefault(field.name, []).append(field)
    signed = [rest.pop().canonical(signature.header_form) for name in signature.names if (rest := left.get(name))]
    own = HeaderField(b"dkim-signature", _without_value(signature.field.raw))
    return b"".join(signed) + own.canonical(signature.header_form).removesuffix(b"\r\n")


def verify(message: bytes, find: Callable[[str], Sequence[str]], now: float) -> list[Result]:
    """Verify all signatures of a message in memory; `find` returns the TXT records of a name."""
    header, _empty, body = message.partition(b"\r\n\r\n")
    fields = split_header(header + b"\r\n")
    results = []
    for each in signatures(fields, now):
        if isinstance(each, Result):
            results.append(each)
            continue
        digest = each.new_body_digest()
        digest.update(body)
        results.append(check(each, fields, digest, find(each.record_name)))
    return results


def _without_value(raw: bytes) -> bytes:
    """The field with an empty b=."""
    return _SIGNATURE_VALUE.sub(rb"\1", raw.removesuffix(b"\r\n"), count=1) + b"\r\n"


def _number(tags: dict[str, str], tag: str) -> int | None:
    value = tags.get(tag)
    if value is None:
        return None
    if not re.fullmatch("[0-9]{1,76}", value):
        raise BadSignature(f"the signature's {tag}= is no number")
    return int(value)


def _base64(tags: dict[str, str], tag: str) -> bytes:
    try:
        return base64.b64decode(_WHITE.sub("", tags[tag]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSignature(f"the signature's {tag}= is no base64") from error
