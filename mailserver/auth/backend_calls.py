"""Calls of back ends, which may answer with an awaitable."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar, cast

from mailserver.auth.asking import Asking
from mailserver.auth.backends.guarded_backend import GuardedBackend
from mailserver.auth.interfaces import IAuthBackend, IScramKeys, User
from mailserver.explain.trace import Trace
from mailserver.sasl.scram_keys import ScramKeys

T = TypeVar("T")


async def keys_of(found: tuple[User, IAuthBackend], hash_name: str) -> ScramKeys | None:
    """The SCRAM keys of a user; None if there are none. Raises: AuthUnavailable."""
    user, backend = found
    if not IScramKeys.providedBy(backend):
        return None
    keys: ScramKeys | None = await answer(cast("IScramKeys", backend).scram_keys(user, hash_name))
    return keys


def with_asking(backend: IAuthBackend, asking: Asking) -> IAuthBackend:
    """The back end, with the class and share of a login attempt where it has a guard."""
    return cast("IAuthBackend", backend.with_asking(asking)) if isinstance(backend, GuardedBackend) else backend


def unguarded(backend: object) -> object:
    """The back end itself, without its guard."""
    return backend.unguarded if isinstance(backend, GuardedBackend) else backend


async def ask(backend: object, question: str, call: Callable[[], T | Awaitable[T]], trace: Trace | None) -> T:
    """The answer of a back end to a call, which the trace notes with its time."""
    if trace is None:
        return await answer(call())
    began, result = monotonic(), "unavailable"
    try:
        given = await answer(call())
        result = "yes" if given else "no"
        return given
    finally:
        name = backend.name if isinstance(backend, GuardedBackend) else type(backend).__name__
        trace.called(name, question, monotonic() - began, result)


async def answer(given: T | Awaitable[T]) -> T:
    """The answer of a back end, awaited if necessary."""
    return await given if inspect.isawaitable(given) else given
