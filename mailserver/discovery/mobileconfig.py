"""A profile for Apple Mail (Configuration Profile Reference, com.apple.mail.managed), without a password."""

from __future__ import annotations

import plistlib
import uuid
from collections.abc import Sequence
from typing import Any, Final

from mailserver.discovery.services import Service

_NAMESPACE: Final = uuid.UUID("7d0b5e0c-8d5a-5a37-9d0f-6a1c8f3b7e21")
"""Makes the profile's identifiers constant, so that a new download replaces the old profile."""


def mobileconfig(address: str, domain: str, offered: Sequence[Service]) -> bytes | None:
    """Make the profile of an address; None if the domain lacks a service for reading or for sending."""
    incoming = next((each for each in offered if each.kind == "imap"), None)
    incoming = incoming or next((each for each in offered if each.kind == "pop3"), None)
    outgoing = next((each for each in offered if each.kind == "submission"), None)
    if incoming is None or outgoing is None:
        return None
    identifier = ".".join(reversed(domain.split(".")))
    account: dict[str, Any] = {
        "PayloadType": "com.apple.mail.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{identifier}.mail.{_identity('account', address)}",
        "PayloadUUID": _identity("account", address),
        "PayloadDisplayName": address,
        "EmailAccountDescription": address,
        "EmailAddress": address,
        "EmailAccountType": "EmailTypeIMAP" if incoming.kind == "imap" else "EmailTypePOP",
        # UseSSL is for STARTTLS too: Mail decides by the port.
        "IncomingMailServerAuthentication": "EmailAuthPassword",
        "IncomingMailServerHostName": incoming.host,
        "IncomingMailServerPortNumber": incoming.port,
        "IncomingMailServerUseSSL": True,
        "IncomingMailServerUsername": address,
        "OutgoingMailServerAuthentication": "EmailAuthPassword",
        "OutgoingMailServerHostName": outgoing.host,
        "OutgoingMailServerPortNumber": outgoing.port,
        "OutgoingMailServerUseSSL": True,
        "OutgoingMailServerUsername": address,
        "OutgoingPasswordSameAsIncomingPassword": True,
    }
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{identifier}.profile.{_identity('profile', address)}",
        "PayloadUUID": _identity("profile", address),
        "PayloadDisplayName": f"Mail of {domain}",
        "PayloadDescription": f"Sets up {address} in Mail.",
        "PayloadOrganization": domain,
        "PayloadContent": [account],
    }
    return plistlib.dumps(profile)


def _identity(what: str, address: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{what}:{address}")).upper()
