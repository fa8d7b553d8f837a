"""Discovery of back ends by the word before the colon: `file` in `file:/etc/mailserver/users`.

A file in a directory `twisted/plugins/` on Python's path announces a back end. It contains an `AuthBackendMaker` and
nothing but strings; the module that it names is imported only if the configuration uses it.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.plugin import IPlugin, getPlugins
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

import twisted.plugins
from mailserver.auth.asking import NEW
from mailserver.auth.interfaces import Hasher, IAddresses, IAuthBackend, IAuthBackendMaker
from mailserver.config.model import Problem
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret


@implementer(IPlugin, IAuthBackendMaker)
@frozen
class AuthBackendMaker:
    """The content of a plugin file: three strings."""

    name: str
    """The word of the configuration."""
    module: str
    """Dotted name of the module with `make_backend(argument, hasher)` and, optionally, `check_backend(argument)`.

    Without `check_backend` the check of a configuration makes a back end and discards it.
    """
    usage: str
    """One line: what the argument is."""


class UnknownBackend(LookupError):
    """No back end of that name. The argument is the whole sentence; `near` is the name probably meant."""

    def __init__(self, sentence: str, near: str = "") -> None:
        super().__init__(sentence)
        self.near = near


class BrokenBackend(Exception):
    """The back end exists and cannot be used. The argument says why, in one line."""


class _RefusingHasher:
    """The hasher of a back end that is made only for a check."""

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        """Raises: AuthUnavailable."""
        del stored, password, share, rank
        raise AuthUnavailable


def find_backend(specification: str, hasher: Hasher) -> Any:
    """Make the back end of `NAME:ARGUMENT`, and verify that it provides IAuthBackend, or IAddresses alone.

    Raises: UnknownBackend; BrokenBackend (its module cannot be imported, has no make_backend, refuses its argument with
    a ValueError, fails in another way, or makes something else).
    """
    name, _, argument = specification.partition(":")
    return _make(_import(_find(name)), argument, hasher)


def _make(module: ModuleType, argument: str, hasher: Hasher) -> Any:
    make = getattr(module, "make_backend", None)
    if make is None:
        raise BrokenBackend(f"{module.__name__} has no make_backend(argument, hasher)")
    try:
        backend = make(argument, hasher)
    except Exception as error:
        raise BrokenBackend(_words(module, error)) from error
    try:
        verifyObject(IAddresses if is_source_of_addresses(backend) else IAuthBackend, backend)
    except Invalid as error:
        sentence = " ".join(str(error).split())
        raise BrokenBackend(f"{module.__name__} did not make a back end: {sentence}") from error
    return backend


def is_source_of_addresses(backend: object) -> bool:
    """Has it addresses, and no users?"""
    return bool(IAddresses.providedBy(backend)) and not IAuthBackend.providedBy(backend)


def _words(module: ModuleType, error: Exception) -> str:
    """The text of a ValueError is for the administrator; for other exceptions, name the module and the type."""
    sentence = " ".join(str(error).split())
    if isinstance(error, ValueError) and sentence:
        return sentence
    # The number in an OSError identifies it; a KeyError's text alone says nothing.
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return f"{module.__name__} did not make a back end: {kind}{sentence}".removesuffix(": ")


def known_backends() -> list[IAuthBackendMaker]:
    """All makers, by name."""
    return sorted(_makers()[0], key=lambda maker: str(maker.name))


def check_entries(source: str, entries: Iterable[str]) -> list[Problem]:
    """Find every problem of the back ends that the file `source` names, users files included. Runs their code."""
    return [problem for entry in entries for problem in _check_one(source, entry)]


def _check_one(source: str, specification: str) -> Iterator[Problem]:
    name, _, argument = specification.partition(":")
    place, value = "[auth] backends", f'"{name}:..."' if argument else f'"{name}"'
    try:
        module = _import(_find(name))
    except UnknownBackend as error:
        yield Problem(source, place, value, str(error), error.near)
        return
    except BrokenBackend as error:
        yield Problem(source, place, value, str(error))
        return
    check_backend = getattr(module, "check_backend", None)
    try:
        if check_backend is None:
            _make(module, argument, _RefusingHasher())
        else:
            for problem in check_backend(argument):
                # A problem of a whole file is reported where the configuration names the file.
                whole = not problem.place and not problem.warning and problem.file != source
                yield Problem(source, place, value, f"{problem.file}: {problem.reason}") if whole else problem
    except BrokenBackend as error:
        yield Problem(source, place, value, str(error))
    except Exception as error:
        yield Problem(source, place, value, _words(module, error))


def _find(name: str) -> IAuthBackendMaker:
    makers, failed = _makers()
    for maker in makers:
        if maker.name == name:
            return maker
    known = sorted(str(maker.name) for maker in makers)
    near = difflib.get_close_matches(name, known, 1)
    broken = f"; the log names {failed} plugin file(s) that cannot be imported" if failed else ""
    raise UnknownBackend(f"no back end is named {name!r}; known: {', '.join(known)}{broken}", near[0] if near else "")


def _makers() -> tuple[list[IAuthBackendMaker], int]:
    """All makers, and the number of plugin files that cannot be imported: twisted.plugin only logs those."""
    failures = 0

    def count(event: LogEvent) -> None:
        nonlocal failures
        # An unwritable cache is logged with `why`, a file that cannot be imported without.
        failures += "failure" in event and not event.get("why")

    observer: ILogObserver = count  # type: ignore[assignment]  # a plain function is one
    globalLogPublisher.addObserver(observer)
    try:
        makers = list(getPlugins(IAuthBackendMaker, twisted.plugins))
    finally:
        globalLogPublisher.removeObserver(observer)
    return makers, failures


def _import(maker: IAuthBackendMaker) -> ModuleType:
    try:
        return importlib.import_module(str(maker.module))
    except Exception as error:
        # An import may raise anything.
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise BrokenBackend(f"{maker.module} cannot be imported: {kind}{' '.join(str(error).split())}") from error
