"""Sanitizing of untrusted text, from certificates and answers, for logs and terminals."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 500


def printable(text: str) -> str:
    """Replace control characters by spaces and truncate."""
    return "".join(character if character.isprintable() else " " for character in text[:LONGEST])
