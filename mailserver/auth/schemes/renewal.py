"""Stored passwords that are quicker to guess than new ones, and the making of a new entry from the password of a login."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mailserver.auth.schemes import schemes
from mailserver.sasl.saslprep import Unpreparable
from mailserver.sasl.scram_keys import derive_under, prepare

MEMORY_KIB: Final = schemes.STRONG.memory_kib
"""Memory of `make_anew`."""
_LEAST_ARGON2: Final = schemes.LIGHT.memory_kib * schemes.LIGHT.passes
_COST: Final = {
    "BLF-CRYPT": (rb"\$2.\$(\d+)\$", 11),
    "SHA256-CRYPT": (rb"\$5\$rounds=(\d+)\$", 50_000),
    "SHA512-CRYPT": (rb"\$6\$rounds=(\d+)\$", 50_000),
    "PBKDF2": (rb"\$1\$[^$]*\$(\d+)\$", 600_000),
}
"""Where an entry has its cost, and that of a new one. Without a cost it has the default, which is lower."""
_BLOWFISH_OCTETS: Final = 72


def is_weaker(stored: str, password: bytes) -> bool:
    """Is the entry quicker to guess than what `mailserver user` makes, and is this all of its password?

    That is so for digests, for clear text, and for a lower cost than new entries of the scheme have.
    """
    try:
        entry = schemes.parse(stored)
    except schemes.BadHash:
        return False
    scheme, body = entry.scheme, entry.body
    if scheme.binary or scheme.is_free or scheme.is_weak:
        return True
    if scheme.name.startswith("ARGON2"):
        memory, passes = (int(each) for each in re.findall(rb"[mt]=(\d+)", body)[:2])
        return memory * passes < _LEAST_ARGON2
    if scheme.name == "BLF-CRYPT" and len(password) >= _BLOWFISH_OCTETS:
        # The entry ignores the rest, and other clients may have another one.
        return False
    if scheme.name not in _COST:
        return False
    pattern, least = _COST[scheme.name]
    found = re.match(pattern, body)
    return found is None or int(found[1]) < least


def make_anew(password: bytes, scram: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A new entry of the strongest scheme, and SCRAM keys by hash.

    `scram`: the "rounds,salt" of each hash for which there are to be keys; empty: new ones. A password that SASLprep
    refuses gets no keys. Raises: BadHash.
    """
    stored = schemes.make(password)
    try:
        prepared = prepare(password)
    except Unpreparable:
        return stored, {}
    return stored, {name: derive_under(name, prepared, parameters).text() for name, parameters in scram.items()}
