"""A request that was read whole and judged, what answers it, and a row of the table of paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen

from mailserver.session.cost import Cost

if TYPE_CHECKING:
    from mailserver.http.services import HttpServices

Status: TypeAlias = Mapping[str, Any]
"""What `mailserver status` is told, of all workers."""


@frozen
class Request:
    """What a client asks for. All text of it is the client's."""

    method: str
    host: str
    """The name of its Host field (RFC 9110 7.2), lower case, without a port; "" from a client of HTTP/1.0."""
    path: str
    """Decoded; begins with /."""
    query: Mapping[str, str]
    """Fields of the query, the first of each name, names in lower case."""
    body: bytes
    peer: IPv4Address | IPv6Address | None
    """None on a Unix socket."""
    secure: bool
    """It came over TLS."""
    forwarded: bool = False
    """A proxy says that it passes on somebody else's (RFC 7239 4, RFC 9110 7.6.3): `peer` is the proxy then."""


@frozen
class Response:
    """An answer. Its length, the date and the fields that every answer has are the session's to add."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = ()
    """Further header fields; one of a name that every answer has takes its place."""


Answer: TypeAlias = "Callable[[Request, HttpServices], Response | Awaitable[Response]]"


@frozen
class Route:
    """One row of the table: a path and what answers it."""

    path: str
    """Exact. At its end `{}` may stand for one segment, which must not be empty and is `Request.path`'s last."""
    answer: Answer
    cost: Cost = field(kw_only=True)
    """The work that a request can cause at most, and where that is done."""
    methods: frozenset[str] = frozenset({"GET"})
    """GET includes HEAD."""
    ignores_case: bool = False
    tls_only: bool = False
    """Without TLS a GET is sent to the HTTPS listener, where there is one."""
    watched: bool = False
    """For the networks of `[http] metrics_from` alone."""

    def fits(self, path: str) -> bool:
        """Is a path this row's?"""
        pattern = self.path
        if self.ignores_case:
            pattern, path = pattern.lower(), path.lower()
        if pattern.endswith("{}"):
            start = pattern[:-2]
            return path.startswith(start) and len(path) > len(start) and "/" not in path[len(start) :]
        return path == pattern


def text(status: int, words: str, *fields: tuple[str, str]) -> Response:
    """A line for people."""
    return Response(status, words.encode() + b"\n", fields=fields)
