"""Whether SCRAM is offered, and the keys that names without keys get."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import cast

from mailserver.auth.interfaces import IAuthBackend, IScramKeys, TypicalScram
from mailserver.errors import AuthUnavailable
from mailserver.sasl.scram_keys import HASHES, ROUNDS, SALT, ScramKeys


class ScramOffer:
    """The SCRAM of the back ends that list users."""

    def __init__(self, listing: Iterable[IAuthBackend], secret: bytes, *, for_some: bool) -> None:
        """`secret`: up to 64 octets for the salts of unknown users. `for_some`: offer it though some users have no keys."""
        self._backends = [cast("IScramKeys", each) if IScramKeys.providedBy(each) else None for each in listing]
        self._secret = secret
        self._for_some = for_some

    def offers(self, hash_name: str) -> bool:
        """Is it offered with that hash now?"""
        offers = False
        try:
            for found in self._typical(hash_name):
                if found is not None and (self._for_some or found.everybody):
                    offers = True
                elif not self._for_some:
                    return False
        except AuthUnavailable:
            return False
        return offers

    def dummy_keys(self, name: str, hash_name: str) -> ScramKeys:
        """Make keys with typical salt and rounds, always the same salt for a name; no proof matches them.

        Raises: AuthUnavailable.
        """
        like = next(filter(None, self._typical(hash_name)), None) or TypicalScram(ROUNDS, SALT, False)
        salt = hashlib.blake2b(f"{hash_name} {name}".encode("utf-8", "surrogatepass"), key=self._secret).digest()
        size = hashlib.new(HASHES[hash_name]).digest_size
        return ScramKeys(like.rounds, salt[: like.salt_size], secrets.token_bytes(size), secrets.token_bytes(size))

    def _typical(self, hash_name: str) -> list[TypicalScram | None]:
        """The typical keys of each back end. Raises: AuthUnavailable."""
        return [each.typical_scram(hash_name) if each is not None else None for each in self._backends]
