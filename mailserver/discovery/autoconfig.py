"""Thunderbird's autoconfig document, version 1.1 (draft-ietf-mailmaint-autoconfig), which K-9 and others read too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from mailserver.discovery.services import Service

_TYPES: Final = {"imap": "imap", "pop3": "pop3", "submission": "smtp"}
_SOCKETS: Final = {"implicit": "SSL", "starttls": "STARTTLS"}


def autoconfig(domain: str, offered: Sequence[Service]) -> bytes:
    """Make the document of a domain; it is the same for all users, as the client inserts the address."""
    root = Element("clientConfig", version="1.1")
    provider = SubElement(root, "emailProvider", id=domain)
    for name in ("domain", "displayName", "displayShortName"):
        SubElement(provider, name).text = domain
    for service in offered:
        tag = "outgoingServer" if service.kind == "submission" else "incomingServer"
        server = SubElement(provider, tag, type=_TYPES[service.kind])
        for name, words in (
            ("hostname", service.host),
            ("port", str(service.port)),
            ("socketType", _SOCKETS[service.tls]),
            ("authentication", "password-cleartext"),
            ("username", "%EMAILADDRESS%"),
        ):
            SubElement(server, name).text = words
    indent(root)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
