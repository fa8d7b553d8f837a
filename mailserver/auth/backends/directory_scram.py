"""The SCRAM keys of an account: those of its main password, and of its app passwords under the same salt (no I/O)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from math import inf

import attrs
from attrs import frozen

from mailserver.directory.credentials import AppPassword
from mailserver.directory.model import LoginRow, StoredKeys
from mailserver.sasl.scram_keys import HASHES, OtherKeys, ScramKeys, parse_decoy


class ScramKeysCache:
    """The keys of recent names, also of names that have none, until the directory changes.

    Looking keys up takes the same for both: the same questions, and keys to parse.
    """

    def __init__(self, most: int) -> None:
        """`most`: names under one hash that are remembered."""
        self._most = most
        self._found: dict[tuple[str, str], _Found] = {}

    def __len__(self) -> int:
        return len(self._found)

    def clear(self) -> None:
        """Forget all: somebody has changed the directory."""
        self._found.clear()

    def find(
        self,
        name: str,
        hash_name: str,
        now: float,
        read: Callable[[], tuple[LoginRow | None, list[AppPassword]]],
    ) -> ScramKeys | None:
        """The keys of an active account; None if there are none. `read`: ask for the account and its app passwords.

        Raises: BadKeys, ValueError for a row that cannot be used.
        """
        found = self._found.get((name, hash_name))
        # An expired app password may be valid again where the clock is set back.
        if found is None or not found.since <= now < found.until:
            found = _keys_at(now, hash_name, *read())
            if len(self._found) >= self._most:
                self._found.clear()
            self._found[name, hash_name] = found
        return found.keys


@frozen
class _Found:
    keys: ScramKeys | None
    since: float
    until: float
    """When the next app password among them expires, in seconds since 1970."""


def _keys_at(now: float, hash_name: str, account: LoginRow | None, app_passwords: list[AppPassword]) -> _Found:
    keys, until = None, inf
    if account is not None and account.is_active:
        valid = [each for each in app_passwords if each.expires is None or each.expires > now]
        keys = scram_keys(account.scram(hash_name), valid, hash_name)
        until = min((each.expires for each in valid if each.expires is not None), default=inf)
    if keys is None:
        parse_decoy(hash_name)
    return _Found(keys, now, until)


def scram_keys(main: StoredKeys | None, app_passwords: Iterable[AppPassword], hash_name: str) -> ScramKeys | None:
    """All keys under one hash; None if there are none. `main`: those of the main password.

    Raises: BadKeys, ValueError for a row that cannot be used.
    """
    others = [
        (each.id, each.scram[hash_name])
        for each in app_passwords
        if hash_name in each.scram and (main is None or each.scram[hash_name].parameters == main.parameters)
    ]
    if main is None and not others:
        return None
    if main is None:
        # No proof matches a stored key of zeros.
        none = base64.b64encode(bytes(hashlib.new(HASHES[hash_name]).digest_size)).decode("ascii")
        main = StoredKeys(others[0][1].parameters, f"{none},{none}")
    keys = ScramKeys.parse(main.text(), hash_name)
    return attrs.evolve(keys, others=tuple(_other(credential, stored, hash_name) for credential, stored in others))


def _other(credential: str, stored: StoredKeys, hash_name: str) -> OtherKeys:
    keys = ScramKeys.parse(stored.text(), hash_name)
    return OtherKeys(credential, keys.stored_key, keys.server_key)
