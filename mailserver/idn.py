"""Internationalised names of hosts and domains in the form that DNS, certificates and configurations have."""

from __future__ import annotations

import idna


def ascii_name(name: str) -> str | None:
    """In lower case, other letters than ASCII as A-labels (RFC 5890 2.3.2.1, mapped by UTS 46); None without such a form.

    A `*.` before it stays.
    """
    if name.isascii():
        return name.lower()
    star = "*." if name.startswith("*.") else ""
    try:
        return star + idna.encode(name.removeprefix(star), uts46=True).decode("ascii")
    except UnicodeError:
        return None
