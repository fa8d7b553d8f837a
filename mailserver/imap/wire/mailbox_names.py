"""Mailbox names between client and store: modified UTF-7 (RFC 3501 5.1.3), separator, prefix, INBOX."""

from __future__ import annotations

import binascii
import re

from attrs import frozen

from mailserver.errors import BadMailboxName, NoSuchMailbox
from mailserver.types import SLASH

MAX_NAME = 1024
"""Octets of a mailbox name on the wire; longer ones no store could keep."""

_ENCODED = re.compile(rb"&([A-Za-z0-9+,]*)-")
_PLAIN = re.compile(r"[\x20-\x7e]+")


def decode_utf7(data: bytes) -> str:
    """The name that the octets mean. Raises: BadMailboxName unless `encode_utf7` would give the same octets."""
    try:
        text = _decode(data)
    except (ValueError, UnicodeError):
        raise BadMailboxName("the mailbox name is not modified UTF-7") from None
    if encode_utf7(text) != data:  # one name, one spelling: else two names would lead to the same place
        raise BadMailboxName("the mailbox name is not modified UTF-7 in its only form")
    return text


def _decode(data: bytes) -> str:
    pieces = []
    at = 0
    while at < len(data):
        shift = data.find(b"&", at)
        if shift < 0:
            shift = len(data)
        pieces.append(data[at:shift].decode("ascii"))
        if shift == len(data):
            break
        match = _ENCODED.match(data, shift)
        if match is None:
            raise ValueError
        encoded = match[1].replace(b",", b"/")
        pieces.append(binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4)).decode("utf-16-be") if encoded else "&")
        at = match.end()
    return "".join(pieces)


def encode_utf7(name: str) -> bytes:
    """The octets of a name. Raises: BadMailboxName for lone surrogates."""
    if name.isascii() and name.isprintable():
        return name.replace("&", "&-").encode("ascii")
    pieces = []
    at = 0
    while at < len(name):
        match = _PLAIN.match(name, at)
        if match:
            pieces.append(match[0].replace("&", "&-").encode("ascii"))
            at = match.end()
            continue
        plain = _PLAIN.search(name, at)
        end = plain.start() if plain else len(name)
        try:
            units = name[at:end].encode("utf-16-be")
        except UnicodeEncodeError:
            raise BadMailboxName from None
        pieces.append(b"&" + binascii.b2a_base64(units, newline=False).rstrip(b"=").replace(b"/", b",") + b"-")
        at = end
    return b"".join(pieces)


@frozen
class Namespace:
    """How the store's names ("/" between levels, INBOX in capitals) look to clients."""

    separator: str = "/"
    prefix: str = ""
    """Before every name but INBOX, separator included."""
    slashes: bool = False
    """Where "." is the separator, a "/" may stand inside a level: it is escaped on disk."""

    @classmethod
    def make(cls, separator: str, prefix: str, *, slashes: bool = False) -> Namespace:
        """From the configuration, where the prefix may come without its separator."""
        whole = prefix + separator if prefix and not prefix.endswith(separator) else prefix
        return cls(separator, whole, slashes)

    def to_store(self, name: str) -> str:
        """The store's name. Raises: BadMailboxName, NoSuchMailbox for a name outside the prefix."""
        if name.upper() == "INBOX":
            return "INBOX"
        if self.prefix:
            size = len(self.prefix)
            if name[:size] != self.prefix and not (
                self.prefix.upper() == "INBOX" + self.separator and name[:size].upper() == self.prefix.upper()
            ):
                raise NoSuchMailbox(f"mailbox names begin with {self.prefix} here")
            name = name[size:]
            if name.upper() == "INBOX":
                # INBOX has no second name, and a folder of that name could not be told from it.
                raise BadMailboxName(f"INBOX is not below {self.prefix}")
        if SLASH in name:
            raise BadMailboxName("a mailbox name may not contain a control character")
        if self.separator != "/":
            if "/" in name and not self.slashes:
                raise BadMailboxName("a mailbox name may not contain a slash here")
            name = name.replace("/", SLASH).replace(self.separator, "/")
        if not name:
            raise BadMailboxName("empty mailbox name")
        first, slash, rest = name.partition("/")
        return "INBOX" + slash + rest if slash and first.upper() == "INBOX" else name

    def to_client(self, name: str) -> str:
        """The client's name."""
        if name == "INBOX":
            return name
        return self.prefix + (name if self.separator == "/" else name.replace("/", self.separator).replace(SLASH, "/"))
