"""Lines of a users file, in Dovecot's passwd-file format (no I/O).

    user@domain:{SCHEME}hash:uid:gid:gecos:home:shell:extra fields

Fields from the third on may be missing. Extra fields are words `name=value` or `name`, separated by spaces. `nologin`
disables the user; `allow_nets=192.0.2.0/24,2001:db8::1,local` lists the networks that it may log in from;
`userdb_addresses=a@b,c@d` lists addresses that it may send as; `quota_fields` has those of the quota. A `!` before the password disables the user, too. Empty
lines and lines that begin with `#` are ignored. Uid, gid, gecos and shell are kept and not used.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from attrs import frozen

from mailserver.idn import ascii_name

MAX_NAME = 255
"""Longest user name, octets of UTF-8."""


_COMMON = re.compile(r"[!-.0-9;-?A-~]+(?:@[!-.0-9;-?A-~]+)?")
"""Nearly all names: visible ASCII without space, colon, slash and a second @."""


class BadLine(ValueError):
    """The line is not an entry. The argument says why, without the password."""


class BadName(ValueError):
    """No user can have that name. The argument says why."""


@frozen
class PasswdEntry:
    """One user of the file."""

    name: str
    """The normalised name."""
    stored: str
    """The password field without the `!`; may be empty."""
    disabled: bool
    """Logins are refused; mail is still accepted."""
    home: str
    extra: Mapping[str, str]
    """Extra fields; a word without `=` has an empty value."""

    @property
    def addresses(self) -> frozenset[str]:
        """Addresses it may send as, lower case."""
        listed = self.extra.get("userdb_addresses", "")
        return frozenset(each.lower() for each in listed.split(",") if each)

    @property
    def networks(self) -> tuple[str, ...] | None:
        """Networks that it may log in from, as they are written; None for all."""
        listed = self.extra.get("allow_nets")
        return None if listed is None else tuple(each for each in listed.split(",") if each)


def normalise(name: str) -> str:
    """Normalise a user name: NFC, lower case (RFC 8265 3.3 maps case and composes alike), the domain in ASCII.

    Raises: BadName for a name that is empty, longer than 255 octets, or contains a control character, a space, a colon or a
    slash: such a name could end a line of the file or leave the mail directory.
    """
    # A long name is refused before any expensive step.
    if not name or len(name) > MAX_NAME:
        raise BadName(f"a user name must have 1 to {MAX_NAME} octets")
    if _COMMON.fullmatch(name):
        plain = name.lower()
    elif name.isascii():
        plain = name.lower()
        if not plain.isprintable():
            raise BadName("a user name must not contain control characters")
    else:
        plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())
        # Controls, format characters, surrogates, unassigned: invisible characters must not distinguish users.
        if any(unicodedata.category(each) in {"Cc", "Cf", "Cs", "Cn", "Co", "Zs", "Zl", "Zp"} for each in plain):
            raise BadName("a user name must not contain invisible characters")
        plain = _in_ascii_domain(plain)
        if len(plain.encode("utf-8")) > MAX_NAME:
            raise BadName(f"a user name must have 1 to {MAX_NAME} octets")
    if any(each in plain for each in " :/"):
        raise BadName("a user name must not contain a space, colon or slash")
    if any(part in {"", ".", ".."} for part in plain.split("@", 1)) or plain.count("@") > 1:
        raise BadName("a user name must be local@domain, or local alone, and no part may be empty, . or ..")
    return plain


def _in_ascii_domain(name: str) -> str:
    """Convert the domain to A-labels, as in the configuration; a domain without that form stays unchanged."""
    local, at, domain = name.rpartition("@")
    return f"{local}@{ascii_name(domain) or domain}" if at else name


def name_of(line: str) -> str | None:
    """The name as written in the line; None for a comment or an empty line. Cheap: the rest is not parsed."""
    if not line.strip() or line.startswith("#"):
        return None
    return line.split(":", 1)[0]


def parse_line(line: str) -> PasswdEntry:
    """Parse a line for which `name_of` returns a name. Raises: BadLine, BadName."""
    fields = line.rstrip("\r\n").split(":", 7)
    if len(fields) < 2:
        raise BadLine("expected user:{SCHEME}hash")
    fields += [""] * (8 - len(fields))
    extra = {}
    for word in fields[7].split():
        key, _, value = word.partition("=")
        extra[key] = value
    stored = fields[1]
    return PasswdEntry(
        name=normalise(fields[0]),
        stored=stored.removeprefix("!"),
        disabled=stored.startswith("!") or "nologin" in extra,
        home=fields[5],
        extra=extra,
    )
