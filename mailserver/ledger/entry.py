"""One way in which an account is used: the client and the parameters of its connection."""

from __future__ import annotations

from typing import Any, Final, Literal

from attrs import astuple, fields, frozen

TlsKind = Literal["implicit", "STARTTLS", "none"]

LONGEST: Final = 255
"""Maximum length of a text: clients choose some of them."""


@frozen
class Entry:
    """The properties that distinguish clients. No address, no password, nothing of the mail."""

    account: str
    program: str
    """Name and version from IMAP's ID (RFC 2971); empty if the client did not send it."""
    protocol: str
    """The listener's protocol, such as "imaps"."""
    port: int
    """0 for a Unix socket."""
    tls: TlsKind
    version: str
    """"TLSv1.3"; empty without TLS, like the three below."""
    cipher: str
    alpn: str
    server_name: str
    """Requested by SNI."""
    mechanism: str
    """SASL mechanism, or the command: "LOGIN", "USER"; with what `with_credential` and `with_delegate` add."""


@frozen
class SeenEntry:
    """An entry with the times when it was seen, Unix time."""

    entry: Entry
    first: int
    last: int
    """Rounded to the hour."""


NAMES: Final = tuple(field.name for field in fields(Entry))


_APP: Final = " app-password:"


def with_delegate(mechanism: str, delegate: str) -> str:
    """The mechanism, with the name of the account that has logged in as the user, unless it is empty."""
    return f"{mechanism} by {delegate}" if delegate else mechanism


def with_credential(mechanism: str, credential: str) -> str:
    """The mechanism, with the identifier of the app password that let the client in, unless it is empty."""
    return f"{mechanism}{_APP}{credential}" if credential else mechanism


def mechanism_of(entry: Entry) -> str:
    """The mechanism alone."""
    return entry.mechanism.partition(" ")[0]


def credential_of(mechanism: str) -> str:
    """The identifier of the app password in it; empty if there is none."""
    return mechanism.partition(_APP)[2]


def as_row(entry: Entry) -> list[str | int]:
    """Convert an entry to JSON values."""
    return list(astuple(entry))


def from_row(row: Any) -> Entry | None:
    """Validate JSON values; None if they are invalid, as the worker that sends them is not trusted."""
    if not isinstance(row, list) or len(row) != len(NAMES):
        return None
    for name, value in zip(NAMES, row, strict=True):
        if name == "port":
            if type(value) is not int or not 0 <= value <= 65535:
                return None
        elif not isinstance(value, str) or len(value) > LONGEST or not value.isprintable():
            return None
    return Entry(*row) if row[0] and row[NAMES.index("tls")] in ("implicit", "STARTTLS", "none") else None
