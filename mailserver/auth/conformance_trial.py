"""A trial of a back end: its calls, and the ways in which a sentence of the contract may fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

from attrs import frozen

from mailserver.auth.backends.guard import CALL_TIMEOUT
from mailserver.config.model import BackendUse
from mailserver.types import Secret

DEFAULTS: Final = BackendUse("")
"""The settings of a back end for which the configuration has none."""
CALL_TIME: Final = CALL_TIMEOUT
"""Seconds that a call may take: the timeout of a login's call."""


class NoAnswer(Exception):
    """A call took longer than CALL_TIME."""


class Broken(Exception):
    """A fault of the back end."""


class NotOffered(Exception):
    """The back end does not provide that interface."""


Within = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Call a function and wait for its answer, at most CALL_TIME in all. Raises: NoAnswer."""


@frozen
class Trial:
    """A back end under test."""

    backend: Any
    name: str
    password: Secret
    within: Within
    use: BackendUse = DEFAULTS
    """The settings that the configuration gives it."""
    clock: Callable[[], float] = monotonic

    async def ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """The answer of a method, awaited if necessary. Raises: NoAnswer."""
        return await self.within(lambda: method(*arguments))

    def demand_offer(self, interface: Any) -> None:
        """Raises: NotOffered."""
        if not interface.providedBy(self.backend):
            raise NotOffered


def demand(fulfilled: bool, fault: str) -> None:
    """Raises: Broken."""
    if not fulfilled:
        raise Broken(fault)
