"""The row of a password scheme, with the check and the verification of its entries, and the errors of invalid entries."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from attrs import frozen

MAX_ROUNDS: Final = 2_000_000
"""Most rounds of a SHA-crypt or PBKDF2 entry."""

_SALT_LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class BadHash(ValueError):
    """The entry cannot be used. The argument says why, without the hash."""


class UnknownScheme(BadHash):
    """No scheme has that name; `name` is the one in the entry."""

    def __init__(self, name: str, sentence: str = "") -> None:
        super().__init__(sentence or f"unknown password scheme {name!r}")
        self.name = name


@frozen
class Scheme:
    """A way to store a password."""

    name: str
    binary: bool
    """The body is base64 or hexadecimal instead of text."""
    check: Callable[[bytes], int]
    """Cheap check of the decoded body. Returns the memory of a verification, KiB. Raises: BadHash."""
    verify: Callable[[bytes, bytes], bool]
    """(decoded body, password) -> right?"""
    make: Callable[[bytes], str] | None = None
    """Password -> body of a new entry; None if new entries should not be made."""
    digest_size: int = 0
    """Octets of an unsalted digest, by which hexadecimal is distinguished from base64."""
    is_free: bool = False
    """Takes no time, and needs no child process."""
    is_weak: bool = False
    """Verified only with weak_schemes in the configuration."""


def number(text: str, least: int, most: int, what: str) -> int:
    """Parse a decimal number within both bounds. Raises: BadHash, which calls it `what`."""
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9):
        raise BadHash(f"{what} is not a number")
    if not least <= int(text) <= most:
        raise BadHash(f"{what} must be between {least} and {most}")
    return int(text)


def salt_text() -> str:
    """Return a random salt of 96 bits, in the letters of crypt(3)."""
    return "".join(secrets.choice(_SALT_LETTERS) for _ in range(16))
