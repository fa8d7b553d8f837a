"""The secret for the salts of unknown users: the same in all processes and after a restart, as real salts are."""

from __future__ import annotations

import hashlib
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")


def salt_secret(path: Path = MACHINE_ID) -> bytes | None:
    """32 octets derived from the machine id, which must not be exposed itself (machine-id(5)); None if there is none."""
    try:
        found = path.read_bytes().strip()
    except OSError:
        return None
    if len(found) < 32:
        return None
    return hashlib.blake2b(found[:256], digest_size=32, person=b"mailserver salts").digest()
