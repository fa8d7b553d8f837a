"""What strangers have written, in certificates and in answers, as it may be shown in a log or on a terminal."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 500


def printable(words: str) -> str:
    """Without what would move a terminal's cursor or begin a line, and with an end."""
    return "".join(character if character.isprintable() else " " for character in words[:LONGEST])
