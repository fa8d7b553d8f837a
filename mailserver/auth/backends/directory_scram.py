"""The SCRAM keys of an account: those of its main password, and of its app passwords under the same salt (no I/O)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

import attrs

from mailserver.directory.credentials import AppPassword
from mailserver.directory.model import StoredKeys
from mailserver.sasl.scram_keys import HASHES, OtherKeys, ScramKeys


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
