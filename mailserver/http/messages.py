"""HTTP requests, already validated, and responses."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeAlias

from attrs import frozen

Status: TypeAlias = Mapping[str, Any]
"""The data of `mailserver status`, of all workers."""


@frozen
class Request:
    """A client's request. All its text is untrusted."""

    method: str
    host: str
    """Name in the Host field (RFC 9110 7.2), lower case, without a port; "" from a client of HTTP/1.0."""
    path: str
    """Decoded; begins with /."""
    query: Mapping[str, str]
    """Fields of the query, the first of each name; names in lower case."""
    body: bytes
    peer: IPv4Address | IPv6Address | None
    """The client's address; None on a Unix socket."""
    secure: bool
    """Did it come over TLS?"""
    forwarded: bool = False
    """Did a proxy forward it (RFC 7239 4, RFC 9110 7.6.3)? `peer` is the proxy then."""


@frozen
class Response:
    """A response. The session adds its length, the date and the common header fields."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = ()
    """Further header fields; one with the name of a common field replaces that."""


def text(status: int, words: str, *fields: tuple[str, str]) -> Response:
    """Make a response with one line of text."""
    return Response(status, words.encode() + b"\n", fields=fields)
