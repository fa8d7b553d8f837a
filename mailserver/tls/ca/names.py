"""Names that a private authority puts into certificates: host names and mail addresses in the form that clients compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from mailserver.config.values import InvalidValue, host_name, host_pattern
from mailserver.idn import ascii_name

MOST_NAMES: Final = 100
"""Of one certificate."""

_MOST_SHOWN: Final = 80
_SPECIALS: Final = frozenset(' ()<>[]:;@\\,"')
"""What a local part has in quotes alone (RFC 5322 3.2.3)."""


class BadName(Exception):
    """A name that no certificate is made for; the text says why."""

    def __init__(self, reason: str, name: str = "") -> None:
        # It may be a stranger's: it must not move a terminal's cursor, or fill it.
        shown = name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}..."
        shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown)
        super().__init__(f"{shown}: {reason}" if name else reason)


def hosts_of(names: Sequence[str]) -> list[str]:
    """Host names and wildcards in lower case, internationalised labels as A-labels (RFC 5890 2.3.2.1). Raises: BadName."""
    found = list(dict.fromkeys(_judged(name, allow_wildcard=True) for name in names))
    if not found:
        raise BadName("a certificate needs at least one name")
    if len(found) > MOST_NAMES:
        raise BadName(f"a certificate has at most {MOST_NAMES} names, not {len(found)}: make several")
    return found


def domain_of(name: str) -> str:
    """One host name or domain, in the same form. Raises: BadName."""
    return _judged(name, allow_wildcard=False)


def address_of(address: str) -> str:
    """A mail address for an rfc822Name (RFC 5280 4.2.1.6), its domain in the same form. Raises: BadName."""
    local, at, domain = address.rpartition("@")
    if not at or not local:
        raise BadName("a user is written as an address, user@domain", address)
    if not local.isascii() or not local.isprintable() or len(local) > 64 or not _SPECIALS.isdisjoint(local):
        raise BadName("what stands before the @ must be at most 64 letters and signs of ASCII, without quotes", address)
    return f"{local}@{domain_of(domain)}"


def outside(names: Iterable[str], only: Sequence[str]) -> list[str]:
    """Names and addresses that are not within domains; of `*.name` what counts is `name`."""
    bare = {name: name.rpartition("@")[2].removeprefix("*.") for name in names}
    return [name for name, host in bare.items() if not any(host == each or host.endswith(f".{each}") for each in only)]


def _judged(name: str, *, allow_wildcard: bool) -> str:
    bare = name.strip().removesuffix(".")
    plain = ascii_name(bare)
    if plain is None:
        raise BadName("is no internationalised host name", name)
    try:
        return host_pattern(plain) if allow_wildcard else host_name(plain)
    except InvalidValue as wrong:
        why = ": mail programs are given a name, and compare that" if "IP address" in wrong.reason else ""
        raise BadName(f"{wrong.reason}{why}", name) from wrong
