"""What is typical of the passwords of a directory, for the dummies of unknown users (no I/O)."""

from __future__ import annotations

import base64
import contextlib
from collections import Counter

from mailserver.auth.interfaces import TypicalScram
from mailserver.auth.schemes import schemes


def typical_hash(secrets: list[str]) -> str | None:
    """A dummy of the most frequent kind. PLAIN costs no time and does not count."""
    kinds: Counter[str] = Counter()
    dummies: dict[str, str] = {}
    for stored in secrets:
        try:
            kind = schemes.parse(stored).kind
            if kind not in dummies:
                dummies[kind] = schemes.dummy_like(stored)
        except schemes.BadHash:
            continue
        if kind != "PLAIN":
            kinds[kind] += 1
    return dummies[kinds.most_common(1)[0][0]] if kinds else None


def typical_scram(parameters: list[str], *, everybody: bool) -> TypicalScram | None:
    """Rounds and size of the salt of most keys; None if there are none."""
    kinds: Counter[tuple[int, int]] = Counter()
    for text in parameters:
        rounds, _, salt = text.partition(",")
        with contextlib.suppress(ValueError):  # nobody can log in by it
            kinds[int(rounds), len(base64.b64decode(salt))] += 1
    if not kinds:
        return None
    rounds_of_most, salt_size = kinds.most_common(1)[0][0]
    return TypicalScram(rounds_of_most, salt_size, everybody)
