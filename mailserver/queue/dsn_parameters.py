"""The parameters of MAIL and RCPT for delivery reports: RET, ENVID, NOTIFY, ORCPT (RFC 3461 4; RFC 6533 3).

The values stay as they were received, as the next hop gets them so; `decode_xtext` is applied once, for a report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from mailserver.errors import BadSyntax

MAX_ENVID: Final = 100
"""Characters, before and after decoding (RFC 3461 4.4)."""
MAX_ORCPT: Final = 500
"""Characters (RFC 3461 4.2)."""
EVENTS: Final = ("SUCCESS", "FAILURE", "DELAY")

_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_ADDRESS_TYPE: Final = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]{1,64}")
_UTF8_ADDRESS: Final = re.compile(r"(?:[!-*,-<>-\[\]-~\u00a0-\ud7ff\ue000-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+")
"""utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 3), after the decoding of xtext."""
_ENCODED: Final = re.compile(r"\+([0-9A-F]{2})")
_EMBEDDED: Final = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


@frozen
class MailParameters:
    """Those of MAIL."""

    ret: str = ""
    envid: str = ""


@frozen
class RcptParameters:
    """Those of RCPT."""

    notify: str = ""
    orcpt: str = ""


def parse_mail(parameters: Iterable[tuple[str, str | None]]) -> MailParameters:
    """RET and ENVID among the parameters of MAIL, of which others are left alone. Raises: BadSyntax."""
    found = _once(parameters, ("RET", "ENVID"))
    return MailParameters(
        parse_ret(found["RET"]) if "RET" in found else "", parse_envid(found["ENVID"]) if "ENVID" in found else ""
    )


def parse_rcpt(parameters: Iterable[tuple[str, str | None]], *, utf8: bool = False) -> RcptParameters:
    """NOTIFY and ORCPT among the parameters of RCPT, of which others are left alone. Raises: BadSyntax.

    `utf8`: MAIL had SMTPUTF8, so that ORCPT may have UTF-8.
    """
    found = _once(parameters, ("NOTIFY", "ORCPT"))
    return RcptParameters(
        parse_notify(found["NOTIFY"]) if "NOTIFY" in found else "",
        parse_orcpt(found["ORCPT"], utf8=utf8) if "ORCPT" in found else "",
    )


def parse_ret(value: str | None) -> str:
    """FULL or HDRS. Raises: BadSyntax."""
    word = (value or "").upper()
    if word not in {"FULL", "HDRS"}:
        raise BadSyntax("RET is FULL or HDRS")
    return word


def parse_envid(value: str | None) -> str:
    """The value of ENVID, in xtext. Raises: BadSyntax."""
    if not value or len(value) > MAX_ENVID or not _XTEXT.fullmatch(value) or not _is_printable(decode_xtext(value)):
        raise BadSyntax("ENVID is at most 100 characters of xtext")
    return value


def parse_notify(value: str | None) -> str:
    """NEVER, or some of SUCCESS, FAILURE, DELAY in that order. Raises: BadSyntax."""
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return "NEVER"
    if len(set(words)) != len(words) or not set(words) <= set(EVENTS):
        raise BadSyntax("NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")
    return ",".join(event for event in EVENTS if event in words)


def parse_orcpt(value: str | None, *, utf8: bool = False) -> str:
    """The value of ORCPT, `type;xtext`. Raises: BadSyntax."""
    kind, separator, address = (value or "").partition(";")
    valid = bool(separator and address) and len(value or "") <= MAX_ORCPT and bool(_ADDRESS_TYPE.fullmatch(kind))
    if valid and kind.lower() == "utf-8":
        valid = (utf8 or address.isascii()) and bool(_UTF8_ADDRESS.fullmatch(decode_xtext(address)))
    elif valid:
        valid = bool(_XTEXT.fullmatch(address)) and _is_printable(decode_xtext(address))
    if not valid:
        raise BadSyntax("ORCPT is an address type, a semicolon and at most 500 characters of xtext")
    return value or ""


def encode_xtext(text: str) -> str:
    """Printable ASCII as xtext (RFC 3461 4)."""
    return "".join(each if "!" <= each <= "~" and each not in "+=" else f"+{ord(each):02X}" for each in text)


def decode_xtext(text: str) -> str:
    """The characters that xtext stands for, once: what comes out is not decoded again."""
    return _ENCODED.sub(lambda found: chr(int(found[1], 16)), text)


def original_recipient(orcpt: str) -> tuple[str, str]:
    """The type and the address that ORCPT stands for, decoded; UTF-8 addresses as Unicode (RFC 6533 3)."""
    kind, _separator, address = orcpt.partition(";")
    address = decode_xtext(address)
    if kind.lower() == "utf-8":
        address = _EMBEDDED.sub(lambda found: _character(int(found[1], 16)), address)
    return kind, address


def ascii_address(address: str) -> str:
    """An address in ASCII: others characters in the form utf-8-addr-xtext has for them (RFC 6533 3)."""
    return "".join(each if "!" <= each <= "~" and each not in "\\+=" else rf"\x{{{ord(each):02X}}}" for each in address)


def _character(number: int) -> str:
    surrogate = 0xD800 <= number <= 0xDFFF
    return "?" if number > 0x10FFFF or surrogate else chr(number)


def _once(parameters: Iterable[tuple[str, str | None]], keywords: tuple[str, ...]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for keyword, value in parameters:
        name = keyword.upper()
        if name in found:
            raise BadSyntax(f"{name} stands twice")
        if name in keywords:
            found[name] = value
    return found


def _is_printable(text: str) -> bool:
    return all(" " <= each <= "~" for each in text)
