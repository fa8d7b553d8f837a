"""Addresses of mail as administrators, mail servers and transfer agents write them (no I/O).

`"a.b"@example.org` is a.b@example.org: quotes are no part of an address (RFC 5321 4.1.2). What precedes the detail is a name
as users have them; the detail itself may have any printable character, as it names a folder.
"""

from __future__ import annotations

import re
from typing import Final

from mailserver.auth.schemes.passwd import BadName, normalise

MAX_LOCAL: Final = 64
"""Octets of a local part (RFC 5321 4.5.3.1.1): no mail server sends to a longer one."""
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


def unquoted(local: str) -> str:
    """A local part without its quotes."""
    found = _QUOTED.fullmatch(local)
    return local if found is None else re.sub(r"(?s)\\(.)", r"\1", found[1])


def normalise_address(written: str) -> str:
    """Normalise an address as `passwd.normalise` does names, without quotes. Raises: BadName."""
    local, at, domain = written.rpartition("@")
    if not at:
        return normalise(written)
    local = unquoted(local)
    name = normalise(f"{local}@{domain}")
    _check_length(local)
    return name


def normalise_recipient(address: str, separator: str) -> str:
    """Normalise an address without quotes that mail is for. `separator`: of details in its domain; empty: there are none.

    Raises: BadName.
    """
    local, at, domain = address.rpartition("@")
    _check_length(local)
    try:
        return normalise(address)
    except BadName:
        base, mark, detail = local.partition(separator) if separator else (local, "", "")
        if not (at and base and mark and detail.isprintable()):
            raise
        whole = normalise(f"{base}@{domain}")
        name, _at, plain = whole.rpartition("@")
        return f"{name}{separator}{detail.lower()}@{plain}"


def _check_length(local: str) -> None:
    if len(local) > MAX_LOCAL or len(local.encode("utf-8", "surrogatepass")) > MAX_LOCAL:
        raise BadName(f"the part of an address before the @ has at most {MAX_LOCAL} octets")
