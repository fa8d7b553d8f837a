"""One way in which an account has been used: the client and what the connection agreed on."""

from __future__ import annotations

from typing import Any, Final, Literal

from attrs import astuple, fields, frozen

TlsKind = Literal["implicit", "STARTTLS", "none"]

LONGEST: Final = 255
"""Characters of a text: clients choose some of them."""


@frozen
class Entry:
    """What tells one client from another. No address, no password, nothing of the mail."""

    account: str
    program: str
    """Name and version of IMAP's ID (RFC 2971); empty where the client has not said."""
    protocol: str
    """The listener's: "imaps"."""
    port: int
    """0 for a Unix socket."""
    tls: TlsKind
    version: str
    """"TLSv1.3"; empty without TLS, as the three below."""
    cipher: str
    alpn: str
    server_name: str
    """Asked for by SNI."""
    mechanism: str
    """SASL mechanism, or the command: "LOGIN", "USER"."""


@frozen
class Seen:
    """An entry and when it was seen, Unix time."""

    entry: Entry
    first: int
    last: int
    """To the hour."""


NAMES: Final = tuple(field.name for field in fields(Entry))


def as_row(entry: Entry) -> list[str | int]:
    """For JSON."""
    return list(astuple(entry))


def from_row(row: Any) -> Entry | None:
    """None for nonsense: who tells is not trusted."""
    if not isinstance(row, list) or len(row) != len(NAMES):
        return None
    for name, value in zip(NAMES, row, strict=True):
        if name == "port":
            if type(value) is not int or not 0 <= value <= 65535:
                return None
        elif not isinstance(value, str) or len(value) > LONGEST or not value.isprintable():
            return None
    return Entry(*row) if row[0] and row[NAMES.index("tls")] in ("implicit", "STARTTLS", "none") else None
