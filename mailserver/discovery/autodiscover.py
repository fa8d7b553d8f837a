"""Outlook's autodiscover, the POX form (MS-OXDSCLI 2.2.4, 3.1.5): what is asked for, and the answer.

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


class BadRequest(Exception):
    """No request of autodiscover; the argument says why."""


@frozen
class Asked:
    """What a request asks for."""

    address: str
    schema: str
    """The form in which the client takes the answer; OUTLOOK is known here."""


class _Reader:
    """Collects the text of two elements."""

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
            raise BadRequest(f"no XML: {expat.errors.messages.get(error.code, 'not well-formed')}") from None
        except (LookupError, ValueError):
            # What is named is looked for among Python's codecs, which say in their own ways that they are none of text.
            raise BadRequest("no XML: an encoding that is not taken") from None

    @staticmethod
    def _doctype(*_words: object) -> NoReturn:
        raise BadRequest("a document type is not taken")

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._open.append(name)
        if len(self._open) > _MAX_DEPTH:
            raise BadRequest("too deeply nested")

    def _end(self, _name: str) -> None:
        self._open.pop()

    def _text(self, words: str) -> None:
        namespace, _space, name = self._open[-1].rpartition(" ")
        if namespace == _REQUEST and name in ("EMailAddress", "AcceptableResponseSchema"):
            whole = self.found.get(name, "") + words
            if len(whole) > _MAX_TEXT:
                raise BadRequest(f"{name} is too long")
            self.found[name] = whole


def parse_request(octets: bytes) -> Asked:
    """What a client sent. Raises: BadRequest."""
    reader = _Reader()
    reader.read(octets)
    return Asked(reader.found.get("EMailAddress", "").strip(), reader.found.get("AcceptableResponseSchema", "").strip())


def autodiscover(address: str, offered: Sequence[Service]) -> bytes:
    """The answer; the best way of each kind alone, as Outlook takes the first. The address is the user name."""
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
            # Encryption takes the place of SSL in clients that know it: SSL is implicit TLS, TLS is STARTTLS.
            ("SSL", "on"),
            ("Encryption", "SSL" if implicit else "TLS"),
            ("AuthRequired", "on"),
        ):
            SubElement(protocol, name).text = words
    return _document(root)


def refusal(code: int, words: str) -> bytes:
    """600: not a request; 601: nothing in the form asked for (MS-OXDSCLI 2.2.4.1.1.2.2)."""
    root = Element("Autodiscover", xmlns=_RESPONSE)
    error = SubElement(SubElement(root, "Response"), "Error")
    SubElement(error, "ErrorCode").text = str(code)
    SubElement(error, "Message").text = words
    return _document(root)


def _document(root: Element) -> bytes:
    indent(root)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
