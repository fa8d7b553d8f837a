"""Addresses and parameters of MAIL and RCPT (RFC 5321 4.1.2), with UTF-8 in them (RFC 6531 3.3).

Two leniences: a space behind the colon, which old programs send, and underscores in domains, which exist. Source
routes are read and dropped (RFC 5321 appendix C). A domain in U-labels becomes its A-labels, the same domain.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import ClassVar

from attrs import frozen

from mailserver.errors import BadSyntax
from mailserver.idn import ascii_name

MAX_LOCAL, MAX_DOMAIN, MAX_PATH = 64, 255, 256
"""RFC 5321 4.5.3.1, octets."""

_UTF8 = "\u00a0-\U0010ffff"
"""Characters beyond ASCII (RFC 6531 3.3), without controls."""
_ATEXT = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_UTF8}-]+"
_DOT_STRING = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_QUOTED = re.compile(rf'"((?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*)"')
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_U_DOMAIN = re.compile(rf"[A-Za-z0-9_.{_UTF8}-]+")
"""A domain with U-labels, which `ascii_name` examines."""
_LITERAL = re.compile(r"\[([0-9A-Za-z:.-]+)\]")
_ROUTE = re.compile(rf"@{_DOMAIN.pattern}(?:,@{_DOMAIN.pattern})*:")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")


class BadSender(BadSyntax):
    """No address can be read from MAIL (RFC 3463 X.1.7)."""

    smtp_reply: ClassVar[tuple[int, str]] = (501, "5.1.7")
    text = "that is no sender address"


class BadRecipient(BadSyntax):
    """No address can be read from RCPT (RFC 3463 X.1.3)."""

    smtp_reply: ClassVar[tuple[int, str]] = (501, "5.1.3")
    text = "that is no recipient address"


class NotASCII(BadSyntax):
    """An address in a command that needs SMTPUTF8, which MAIL does not announce (RFC 6531 3.5)."""

    smtp_reply: ClassVar[tuple[int, str]] = (553, "5.6.7")
    text = "an address beyond ASCII needs SMTPUTF8, and is UTF-8"


class UnknownParameter(BadSyntax):
    """A MAIL or RCPT parameter that is not offered (RFC 5321 4.1.1.11)."""

    smtp_reply: ClassVar[tuple[int, str]] = (555, "5.5.4")
    text = "parameter not recognized"


@frozen
class Address:
    """A mailbox, unquoted: `a.b` and `"a.b"` are one local part (RFC 5321 4.1.2)."""

    local: str
    domain: str = ""
    """Empty for a bare name, such as postmaster."""

    def __str__(self) -> str:
        local = self.local
        if not _DOT_STRING.fullmatch(local):
            local = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def key(self) -> str:
        """For comparing and looking up: lower case, no quotes; beyond ASCII in form C (RFC 6532 3.1)."""
        key = self.unquoted.lower()
        return key if key.isascii() else unicodedata.normalize("NFC", key)

    @property
    def unquoted(self) -> str:
        """Without quotes: not for a command or field."""
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def is_ascii(self) -> bool:
        """Can a server without SMTPUTF8 take it?"""
        return self.local.isascii()


@frozen
class Path:
    """The argument of MAIL or RCPT: a path and its parameters."""

    address: Address | None
    """None is the null path, `<>`."""
    parameters: dict[str, str | None]
    """By keyword, upper case; None without a value."""
    is_ascii: bool = True
    """Was it sent in ASCII?"""


def parse_mail(argument: bytes) -> Path:
    """`FROM:<...>` and its parameters. Raises: BadSender, NotASCII, BadSyntax."""
    return _parse(argument, "FROM:", BadSender)


def parse_rcpt(argument: bytes) -> Path:
    """`TO:<...>` and its parameters. Raises: BadRecipient, NotASCII, BadSyntax."""
    path = _parse(argument, "TO:", BadRecipient)
    if path.address is None:
        raise BadRecipient
    return path


def _parse(argument: bytes, keyword: str, refusal: type[BadSyntax]) -> Path:
    try:
        text = argument.decode("utf-8")
    except UnicodeDecodeError:
        raise NotASCII from None
    if text[: len(keyword)].upper() != keyword:
        raise BadSyntax(f"{keyword}<address> is expected")
    text = text[len(keyword) :].lstrip(" ")
    if not text.startswith("<"):
        raise refusal
    address, rest = _parse_path(text, refusal)
    if rest and not rest.startswith(" "):
        raise BadSyntax("a space is expected before a parameter")
    return Path(address, _parse_parameters(rest), argument.isascii())


def _parse_path(text: str, refusal: type[BadSyntax]) -> tuple[Address | None, str]:
    """The path at the start of `text`, and what follows its `>`."""
    if text.startswith("<>"):
        return None, text[2:]
    at = 1
    if route := _ROUTE.match(text, at):
        at = route.end()
    if quoted := _QUOTED.match(text, at):
        local, at = re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    elif plain := _DOT_STRING.match(text, at):
        local, at = plain[0], plain.end()
    else:
        raise refusal
    domain = ""
    if text[at : at + 1] == "@":
        domain, at = _parse_domain(text, at + 1, refusal)
    if text[at : at + 1] != ">" or not local or len(text[: at + 1].encode("utf-8", "replace")) > MAX_PATH:
        raise refusal
    if len(local.encode("utf-8", "replace")) > MAX_LOCAL or len(domain) > MAX_DOMAIN:
        raise refusal
    return Address(local, domain), text[at + 1 :]


def _parse_domain(text: str, at: int, refusal: type[BadSyntax]) -> tuple[str, int]:
    """The domain or address literal that begins there, in ASCII, and its end."""
    found = _U_DOMAIN.match(text, at)
    if found is not None and not found[0].isascii():
        name = ascii_name(found[0]) if len(found[0]) <= MAX_DOMAIN else None
        if name is None or not _DOMAIN.fullmatch(name):
            raise refusal
        return name, found.end()
    found = _DOMAIN.match(text, at) or _LITERAL.match(text, at)
    if found is None or (found[0].startswith("[") and parse_literal(found[0]) is None):
        raise refusal
    return found[0], found.end()


def parse_address(text: str) -> Address | None:
    """`local@domain` alone, None if it is not one."""
    try:
        address, rest = _parse_path(f"<{text}>", BadSender)
    except BadSender:
        return None
    return address if not rest and address is not None and address.domain else None


def address_of(unquoted: str) -> Address | None:
    """An address that is written without quotes; None if it is not one."""
    local, at, domain = unquoted.rpartition("@")
    return parse_address(str(Address(local, domain))) if at and local else None


def parse_literal(text: str) -> IPv4Address | IPv6Address | None:
    """`[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3)."""
    inner = text[1:-1]
    try:
        return IPv6Address(inner[5:]) if inner[:5].upper() == "IPV6:" else IPv4Address(inner)
    except AddressValueError:
        return None


def is_hello_name(text: str) -> bool:
    """A domain or an address literal, the argument of EHLO (RFC 5321 4.1.1.1)."""
    if len(text) > MAX_DOMAIN:
        return False
    if _LITERAL.fullmatch(text):
        return parse_literal(text) is not None
    return _DOMAIN.fullmatch(text) is not None


def _parse_parameters(text: str) -> dict[str, str | None]:
    parameters: dict[str, str | None] = {}
    for word in text.split():
        found = _PARAMETER.fullmatch(word)
        if found is None:
            raise BadSyntax("that is no parameter")
        keyword, value = found[1].upper(), found[2]
        if keyword in parameters:
            raise BadSyntax(f"{keyword} stands twice")
        parameters[keyword] = value
    return parameters


def is_auth_parameter(value: str | None) -> bool:
    """The value of MAIL's AUTH= (RFC 4954 5): xtext, or `<>`."""
    return value is not None and (value == "<>" or _XTEXT.fullmatch(value) is not None)
