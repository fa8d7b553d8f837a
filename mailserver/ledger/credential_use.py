"""The last use of an app password: when, by which protocol, and the network of the client."""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from mailserver.ledger.entry import LONGEST

LATEST: Final = 2**40
"""Seconds since 1970 that a use is from, at most."""


@frozen
class CredentialUse:
    """One app password, and its last use."""

    credential: str
    """Its identifier."""
    account: str
    network: str
    """The /24 (IPv4) or /48 (IPv6) of the client; "local" for a Unix socket."""
    protocol: str
    last: int
    """Seconds since 1970."""


def use_from_row(row: Any) -> CredentialUse | None:
    """Validate JSON values; None if they are invalid, as the worker that sends them is not trusted."""
    match row:
        case [str(credential), str(account), str(network), str(protocol), int(last)] if type(last) is int:
            texts = (credential, account, network, protocol)
            if all(text and len(text) <= LONGEST and text.isprintable() for text in texts) and 0 <= last <= LATEST:
                return CredentialUse(credential, account, network, protocol, last)
    return None
