"""One row of the table of paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from attrs import field, frozen

from mailserver.http.messages import Request, Response
from mailserver.http.services import HttpServices
from mailserver.session.cost import Cost

Answer: TypeAlias = Callable[[Request, HttpServices], Response | Awaitable[Response]]


@frozen
class Route:
    """A path and the function that answers it."""

    path: str
    """The exact path. A final `{}` stands for one segment, which must not be empty and ends `Request.path`."""
    answer: Answer
    cost: Cost = field(kw_only=True)
    """The maximum work of a request, and where it is done."""
    methods: frozenset[str] = frozenset({"GET"})
    """GET includes HEAD."""
    ignores_case: bool = False
    tls_only: bool = False
    """Without TLS a GET is redirected to the HTTPS listener, if there is one."""
    monitoring: bool = False
    """Is it reserved for the networks of `[http] metrics_from`?"""

    def matches(self, path: str) -> bool:
        """Does this route serve a path?"""
        pattern = self.path
        if self.ignores_case:
            pattern, path = pattern.lower(), path.lower()
        if pattern.endswith("{}"):
            start = pattern[:-2]
            return path.startswith(start) and len(path) > len(start) and "/" not in path[len(start) :]
        return path == pattern
