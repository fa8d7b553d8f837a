"""The identifier of a message's content (EMAILID of RFC 8474), from the base of its file's name.

A base names one message for ever. So the identifier of a message that was delivered or appended is a hash of its base. A COPY
or MOVE of this server gives the message a new base, which carries the identifier: `1276528487.M...host,E=<24 hex
digits>,S=1355,W=1394`. It needs no record of its own, and survives the index, backups and a time under Dovecot, which keeps
bases. Messages that Dovecot copies get new ones.

The claim of another program's name is not believed: its content may be any.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from mailserver.store.name_sizes import OWN_NAME

_OCTETS: Final = 12
_CLAIM: Final = re.compile(rb",E=([0-9a-f]{24})(?=,|\Z)")


def email_id(base: bytes) -> str:
    """Return the identifier of the message with that base: 24 hex digits."""
    if b",E=" in base and OWN_NAME.match(base):
        found = _CLAIM.search(base)
        if found is not None:
            return found[1].decode("ascii")
    return blake2b(base, digest_size=_OCTETS).hexdigest()
