"""Host names and mail addresses in certificates, normalized to the form that clients compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from mailserver.config.values import InvalidValue, host_name, host_pattern
from mailserver.idn import ascii_name

MOST_NAMES: Final = 100
"""Maximum number of names in one certificate."""

_MOST_SHOWN: Final = 80
_SPECIALS: Final = frozenset(' ()<>[]:;@\\,"')
"""Characters that a local part may have only in quotes (RFC 5322 3.2.3)."""


class BadName(Exception):
    """A name for which no certificate is made; the text says why."""

    def __init__(self, reason: str, name: str = "") -> None:
        # The name may be untrusted: no control characters for a terminal, and a bounded length.
        shown = name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}..."
        shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown)
        super().__init__(f"{shown}: {reason}" if name else reason)


def hosts_of(names: Sequence[str]) -> list[str]:
    """Normalize host names and wildcards: lower case, A-labels (RFC 5890 2.3.2.1). Raises: BadName."""
    found = list(dict.fromkeys(_normalized(name, allow_wildcard=True) for name in names))
    if not found:
        raise BadName("a certificate needs at least one name")
    if len(found) > MOST_NAMES:
        raise BadName(f"a certificate has at most {MOST_NAMES} names, not {len(found)}: make several")
    return found


def domain_of(name: str) -> str:
    """Normalize one host name or domain. Raises: BadName."""
    return _normalized(name, allow_wildcard=False)


def address_of(address: str) -> str:
    """Normalize a mail address for an rfc822Name (RFC 5280 4.2.1.6). Raises: BadName."""
    local, at, domain = address.rpartition("@")
    if not at or not local:
        raise BadName("a user needs an address, user@domain", address)
    if not local.isascii() or not local.isprintable() or len(local) > 64 or not _SPECIALS.isdisjoint(local):
        raise BadName("the part before the @ must be at most 64 printable ASCII characters without quotes", address)
    return f"{local}@{domain_of(domain)}"


def outside(names: Iterable[str], only: Sequence[str]) -> list[str]:
    """Return the names and addresses outside these domains; `*.name` counts as `name`."""
    bare = {name: name.rpartition("@")[2].removeprefix("*.") for name in names}
    return [name for name, host in bare.items() if not any(host == each or host.endswith(f".{each}") for each in only)]


def _normalized(name: str, *, allow_wildcard: bool) -> str:
    bare = name.strip().removesuffix(".")
    plain = ascii_name(bare)
    if plain is None:
        raise BadName("is no internationalised host name", name)
    try:
        return host_pattern(plain) if allow_wildcard else host_name(plain)
    except InvalidValue as wrong:
        why = ": mail clients are configured with a name, and compare that" if "IP address" in wrong.reason else ""
        raise BadName(f"{wrong.reason}{why}", name) from wrong
