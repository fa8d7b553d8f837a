"""Conversion of internationalised host and domain names to the ASCII form of DNS, certificates and configurations."""

from __future__ import annotations

import idna


def ascii_name(name: str) -> str | None:
    """Convert a name to lower case and A-labels (RFC 5890 2.3.2.1, mapped by UTS 46); None if it has no such form.

    A leading `*.` is kept.
    """
    if name.isascii():
        return name.lower()
    star = "*." if name.startswith("*.") else ""
    try:
        return star + idna.encode(name.removeprefix(star), uts46=True).decode("ascii")
    except UnicodeError:
        return None
