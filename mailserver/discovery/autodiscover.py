"""Outlook's autodiscover, the POX form (MS-OXDSCLI 2.2.4, 3.1.5): requests and responses.

A request with a document type is refused as a whole, so no entity is ever expanded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn
from xml.etree.ElementTree import Element, SubElement, indent, tostring
from xml.parsers import expat

from attrs import frozen

from mailserver.discovery.services import Service

OUTLOOK: Final = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
_REQUEST: Final = "http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"
_RESPONSE: Final = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
_MAX_DEPTH: Final = 10
_MAX_TEXT: Final = 1000
_TYPES: Final = {"imap": "IMAP", "pop3": "POP3", "submission": "SMTP"}


class BadAutodiscoverRequest(Exception):
    """An invalid autodiscover request; the argument says why."""


@frozen
class AutodiscoverRequest:
    """A parsed autodiscover request."""

    address: str
    schema: str
    """The response schema that the client accepts; OUTLOOK is the only known one."""


class _Reader:
    """Parser that collects the text of two elements."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._open: list[str] = []
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text

    def read(self, octets: bytes) -> None:
        try:
            self._parser.Parse(octets, True)
        except expat.ExpatError as error:
            raise BadAutodiscoverRequest(
                f"invalid XML: {expat.errors.messages.get(error.code, 'not well-formed')}"
            ) from None
        except (LookupError, ValueError):
            # expat looks the encoding up among Python's codecs; those that are no text encodings fail in various ways.
            raise BadAutodiscoverRequest("invalid XML: unsupported encoding") from None

    @staticmethod
    def _doctype(*_words: object) -> NoReturn:
        raise BadAutodiscoverRequest("document types are not accepted")

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._open.append(name)
        if len(self._open) > _MAX_DEPTH:
            raise BadAutodiscoverRequest("too deeply nested")

    def _end(self, _name: str) -> None:
        self._open.pop()

    def _text(self, words: str) -> None:
        namespace, _space, name = self._open[-1].rpartition(" ")
        if namespace == _REQUEST and name in ("EMailAddress", "AcceptableResponseSchema"):
            whole = self.found.get(name, "") + words
            if len(whole) > _MAX_TEXT:
                raise BadAutodiscoverRequest(f"{name} is too long")
            self.found[name] = whole


def parse_request(octets: bytes) -> AutodiscoverRequest:
    """Parse a request. Raises: BadRequest."""
    reader = _Reader()
    reader.read(octets)
    return AutodiscoverRequest(
        reader.found.get("EMailAddress", "").strip(), reader.found.get("AcceptableResponseSchema", "").strip()
    )


def autodiscover(address: str, offered: Sequence[Service]) -> bytes:
    """Make the response with the best service of each kind alone: Outlook uses the first. The address is the user name."""
    root = Element("Autodiscover", xmlns=_RESPONSE)
    account = SubElement(SubElement(root, "Response", xmlns=OUTLOOK), "Account")
    SubElement(account, "AccountType").text = "email"
    SubElement(account, "Action").text = "settings"
    best: dict[str, Service] = {}
    for service in offered:
        best.setdefault(service.kind, service)
    for service in best.values():
        protocol = SubElement(account, "Protocol")
        implicit = service.tls == "implicit"
        for name, words in (
            ("Type", _TYPES[service.kind]),
            ("Server", service.host),
            ("Port", str(service.port)),
            ("DomainRequired", "off"),
            ("LoginName", address),
            ("SPA", "off"),
            # Clients that know Encryption ignore SSL: SSL is implicit TLS, TLS is STARTTLS.
            ("SSL", "on"),
            ("Encryption", "SSL" if implicit else "TLS"),
            ("AuthRequired", "on"),
        ):
            SubElement(protocol, name).text = words
    return _document(root)


def refusal(code: int, words: str) -> bytes:
    """Make an error response: 600 for an invalid request, 601 for an unknown schema (MS-OXDSCLI 2.2.4.1.1.2.2)."""
    root = Element("Autodiscover", xmlns=_RESPONSE)
    error = SubElement(SubElement(root, "Response"), "Error")
    SubElement(error, "ErrorCode").text = str(code)
    SubElement(error, "Message").text = words
    return _document(root)


def _document(root: Element) -> bytes:
    indent(root)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
