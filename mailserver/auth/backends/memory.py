"""A back end of a few users in memory, for tests: `memory:anna@example.test=secret,ben@example.test=other`."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from zope.interface import implementer

from mailserver.auth.interfaces import Hasher, IAuthBackend, User
from mailserver.auth.schemes.passwd import normalise
from mailserver.config.model import Problem
from mailserver.types import Secret


@implementer(IAuthBackend)
class MemoryBackend:
    """Users with passwords in clear text."""

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = {normalise(name): password.encode("utf-8") for name, password in passwords.items()}

    def find_user(self, name: str) -> User | None:
        """The user of that name."""
        return User(name) if name in self._passwords else None

    def verify_password(self, user: User, password: Secret) -> bool:
        """Compare the passwords."""
        return hmac.compare_digest(self._passwords.get(user.name, b""), password.reveal()) and bool(password.reveal())


def make_backend(argument: str, hasher: Hasher) -> MemoryBackend:
    """The back end of `memory:NAME=PASSWORD,...`. Raises: ValueError (BadName too) for anything else."""
    del hasher
    return _make(argument)


def check_backend(argument: str) -> list[Problem]:
    """Check only that the back end can be made. Raises: ValueError."""
    _make(argument)
    return []


def _make(argument: str) -> MemoryBackend:
    passwords = {}
    for word in filter(None, argument.split(",")):
        name, equals, password = word.partition("=")
        if not equals or not password:
            raise ValueError("memory: needs NAME=PASSWORD, separated by commas")
        passwords[name] = password
    return MemoryBackend(passwords)
