"""Whom a password check is for: its class and its share, by which the hash pool and the guards let checks take turns."""

from __future__ import annotations

from typing import Final

from attrs import frozen

KNOWN: Final = 0
"""Class of a user at a network from which it has logged in before."""
NEW: Final = 1
"""Class of all other networks, except..."""
GUESSING: Final = 2
"""...networks from which somebody has guessed recently."""
CLASSES: Final = 3


@frozen
class Asking:
    """Class and share of a password check: higher classes go first, and the shares of a class take turns."""

    share: str = ""
    """The user's name in the class KNOWN; else the client: an IPv4 address or an IPv6 /64."""
    rank: int = NEW


ANYBODY: Final = Asking()
