"""What one way to store a password is: the row that a scheme has, and what its check may say of an entry."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from attrs import frozen

MAX_ROUNDS: Final = 2_000_000
"""Most rounds of an entry of SHA-crypt or PBKDF2."""

_SALT_LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class BadHash(ValueError):
    """The entry cannot be used. The argument says why and holds nothing of the hash."""


class UnknownScheme(BadHash):
    """No scheme of that name here; `name` is the one asked for."""

    def __init__(self, name: str, sentence: str = "") -> None:
        super().__init__(sentence or f"unknown password scheme {name!r}")
        self.name = name


@frozen
class Scheme:
    """One way to store a password."""

    name: str
    binary: bool
    """The body is base64 or hexadecimal instead of text."""
    check: Callable[[bytes], int]
    """Cheap look at the decoded body. Returns the memory it needs, KiB. Raises: BadHash."""
    verify: Callable[[bytes, bytes], bool]
    """(decoded body, password) -> right?"""
    make: Callable[[bytes], str] | None = None
    """Password -> body; None where new entries should not be made."""
    digest_size: int = 0
    """Octets of an unsalted digest: tells hexadecimal from base64."""
    is_free: bool = False
    """Takes no time, and needs no process of its own."""
    is_weak: bool = False
    """Verified only where the configuration says so."""


def number(text: str, least: int, most: int, what: str) -> int:
    """That decimal number, within both bounds. Raises: BadHash, which names it as `what`."""
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9):
        raise BadHash(f"{what} is not a number")
    if not least <= int(text) <= most:
        raise BadHash(f"{what} must be between {least} and {most}")
    return int(text)


def salt_text() -> str:
    """A new random salt of the letters that crypt(3) has for it: 96 bits."""
    return "".join(secrets.choice(_SALT_LETTERS) for _ in range(16))
