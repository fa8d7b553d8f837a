"""Signing of a message in the name of its author's domain (RFC 6376 5, RFC 8463, RFC 8301).

Each key makes a signature of its own over one body hash, in the relaxed forms. Fields that mail programs show, or that
decide how a body is read, are *oversigned*: named once more in `h=` than they occur, so that nobody can add another
(RFC 6376 8.15). `l=` is never used: it would let anybody add to the body (RFC 6376 8.2).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Final

from mailserver.dkim.canonical import BodyDigest, HeaderField, relaxed_field, split_header
from mailserver.dkim.keys import SigningKey, load_private, sign

OVERSIGNED: Final = (
    "from",
    "to",
    "cc",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
)
"""Fields of which a message has one at most (RFC 5322 3.6, RFC 2045)."""
SIGNED: Final = (
    "sender",
    "content-disposition",
    "content-id",
    "content-description",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-post",
    "list-help",
    "list-archive",
)
"""Fields that are signed where they occur; mailing lists may add them."""
MOST_FIELDS: Final = 64
"""Signed fields of one message, so that its signature stays small: with each field once there are 22."""

_LINE: Final = 76
_NAMES = b"|".join(name.encode("ascii") for name in OVERSIGNED + SIGNED)
_WANTED = re.compile(rb"^(?:%b)[ \t]*:(?:[^\r]++|\r\n[ \t]|\r(?!\n))*+\r\n" % _NAMES, re.IGNORECASE | re.MULTILINE)


class CannotSign(Exception):
    """A message cannot be signed; the argument says why."""


def new_body_digest() -> BodyDigest:
    """The digest that `DomainSigner.sign` needs."""
    return BodyDigest("relaxed")


class DomainSigner:
    """The keys of one domain, ready to sign."""

    def __init__(self, domain: str, keys: Iterable[SigningKey]) -> None:
        """`domain` in A-labels. The keys were validated by who has read them. Raises: BadKey."""
        self.domain = domain
        self._keys = [(key.selector, key.algorithm, load_private(key, validated=True)) for key in keys]

    @property
    def selectors(self) -> tuple[str, ...]:
        """The selectors, in the order of signatures."""
        return tuple(selector for selector, _algorithm, _key in self._keys)

    def sign(self, header: bytes, body_hash: bytes, now: float) -> bytes:
        """The DKIM-Signature fields, to be put before the message; none if no key is left.

        `header` ends at the empty line or before it, lines end in CRLF; `now` is Unix time. Raises: CannotSign.
        """
        fields = signed_fields(header)
        names = ":".join(name for name, _field in fields)
        signed = b"".join(relaxed_field(field.raw) for _name, field in fields if field is not None)
        body = base64.b64encode(body_hash).decode("ascii")
        made = []
        for selector, algorithm, key in self._keys:
            tags = f"v=1; a={algorithm}-sha256; c=relaxed/relaxed; d={self.domain};\r\n\ts={selector}; t={int(now)};"
            start = f"DKIM-Signature: {tags}\r\n\t{_fold(f'h={names};')}\r\n\tbh={body};\r\n\tb=".encode("ascii")
            # The field itself is signed last, without a signature and without its CRLF (RFC 6376 3.7).
            signature = sign(key, signed + relaxed_field(start).removesuffix(b"\r\n"))
            made.append(start + _fold_base64(signature) + b"\r\n")
        return b"".join(made)


def signed_fields(header: bytes) -> list[tuple[str, HeaderField | None]]:
    """The fields to sign by name, in the order of `h=`; None for the missing one of an oversigned name.

    Of fields with one name the lowest comes first (RFC 6376 5.4.2). Raises: CannotSign.
    """
    found: dict[str, list[HeaderField]] = {}
    for count, match in enumerate(_WANTED.finditer(header), 1):
        [field] = split_header(match[0])
        found.setdefault(field.name.decode("ascii"), []).append(field)
        if count > MOST_FIELDS:
            raise CannotSign(f"it has more than {MOST_FIELDS} fields that are signed")
    if len(found.get("from", ())) != 1:
        raise CannotSign("it has not one From field")
    chosen: list[tuple[str, HeaderField | None]] = []
    for name in OVERSIGNED + SIGNED:
        chosen += [(name, field) for field in reversed(found.get(name, []))]
        if name in OVERSIGNED:
            chosen.append((name, None))
    return chosen


def _fold(names: str) -> str:
    """Fold a list of names behind colons (RFC 6376 3.5, h=)."""
    lines, line = [], ""
    for word in re.findall(r"[^:]+:?", names):
        if line and len(line) + len(word) > _LINE:
            lines.append(line)
            line = ""
        line += word
    return "\r\n\t ".join([*lines, line])


def _fold_base64(octets: bytes) -> bytes:
    text = base64.b64encode(octets)
    return b"\r\n\t ".join(text[at : at + _LINE - 4] for at in range(0, len(text), _LINE - 4))
