"""Client settings in the terms of each family of mail clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote

from attrs import frozen

from mailserver.config.model import Config, Domain
from mailserver.discovery.services import Service, web_host, web_port

KIND_WORDS: Final = {"imap": "IMAP", "pop3": "POP3", "submission": "SMTP"}

SECURITY_WORDS: Final = (
    ("Thunderbird, K-9", "SSL/TLS", "STARTTLS"),
    ("Outlook", "SSL/TLS", "STARTTLS"),
    ("Apple Mail", "Use SSL/TLS: on", "Use SSL/TLS: on"),
    ("Gmail app", "SSL/TLS", "STARTTLS"),
)
"""Program, and its terms for implicit TLS and STARTTLS. Apple Mail tells the two apart by the port."""


@frozen
class Choice:
    """One program's term for one service."""

    program: str
    words: str


def security(service: Service) -> str:
    """Return the term that most programs use."""
    return "SSL/TLS" if service.tls == "implicit" else "STARTTLS"


def choices(service: Service) -> list[Choice]:
    """Return each program's term for the security of a service."""
    return [
        Choice(program, implicit if service.tls == "implicit" else starttls)
        for program, implicit, starttls in SECURITY_WORDS
    ]


def muttrc(user: str, offered: Sequence[Service]) -> Iterator[str]:
    """Yield lines for mutt's configuration, with the best service to read and to send."""
    name = quote(user, safe="")
    reading = next((each for each in offered if each.kind == "imap"), None)
    sending = next((each for each in offered if each.kind == "submission"), None)
    if reading is not None:
        scheme = "imaps" if reading.tls == "implicit" else "imap"
        yield f'set folder = "{scheme}://{name}@{reading.host}:{reading.port}/"'
    if sending is not None:
        scheme = "smtps" if sending.tls == "implicit" else "smtp"
        yield f'set smtp_url = "{scheme}://{name}@{sending.host}:{sending.port}/"'
    yield "set ssl_force_tls = yes"


def profile_link(config: Config, domain: Domain, address: str) -> str | None:
    """Return the URL of the Apple profile of an address; None without an HTTPS listener."""
    port, host = web_port(config), web_host(config, domain)
    if port is None or host is None:
        return None
    place = host if port == 443 else f"{host}:{port}"
    return f"https://{place}/profile.mobileconfig?emailaddress={quote(address, safe='@')}"
