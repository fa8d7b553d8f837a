"""Mailbox names between client and store: modified UTF-7 (RFC 3501 5.1.3) or UTF-8 (RFC 9051 5.1), separator, prefix, INBOX."""

from __future__ import annotations

import unicodedata

from attrs import frozen

from mailserver import modified_utf7
from mailserver.errors import BadMailboxName, NoSuchMailbox
from mailserver.types import SLASH

MAX_NAME = 1024
"""Octets of a mailbox name on the wire; no store could hold a longer one."""


def decode_utf7(data: bytes) -> str:
    """Decode canonical modified UTF-7. Raises: BadMailboxName."""
    try:
        return modified_utf7.decode(data.decode("ascii"))
    except ValueError:
        raise BadMailboxName("the mailbox name is not canonical modified UTF-7") from None


def encode_utf7(name: str) -> bytes:
    """Encode a name in modified UTF-7. Raises: BadMailboxName for lone surrogates."""
    try:
        return modified_utf7.encode(name).encode("ascii")
    except ValueError:
        raise BadMailboxName from None


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8. Raises: BadMailboxName."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadMailboxName("the mailbox name is not UTF-8") from None


def encode_utf8(name: str) -> bytes:
    """Encode a name in UTF-8. Raises: BadMailboxName for lone surrogates."""
    try:
        return name.encode("utf-8")
    except UnicodeEncodeError:
        raise BadMailboxName from None


def require_net_unicode(name: str) -> None:
    """Raises: BadMailboxName for a new name that is not in Unicode's form C (RFC 9051 5.1, RFC 5198 2)."""
    if not unicodedata.is_normalized("NFC", name):
        raise BadMailboxName("the mailbox name is not in Unicode's normalization form C")


def is_inbox(level: str) -> bool:
    """True for INBOX in any case of its ASCII letters (RFC 3501 5.1): Unicode has another letter whose capital is I."""
    return level.isascii() and level.upper() == "INBOX"


@frozen
class Namespace:
    """The mapping between the store's names ("/" between levels, INBOX in capitals) and those of clients."""

    separator: str = "/"
    prefix: str = ""
    """Before every name but INBOX, separator included."""
    slashes: bool = False
    """Where "." is the separator, a "/" may stand inside a level: it is escaped on disk."""

    @classmethod
    def make(cls, separator: str, prefix: str, *, slashes: bool = False) -> Namespace:
        """Make it of the configuration, in which the prefix may lack its separator."""
        whole = prefix + separator if prefix and not prefix.endswith(separator) else prefix
        return cls(separator, whole, slashes)

    def to_store(self, name: str) -> str:
        """The store's name. Raises: BadMailboxName, NoSuchMailbox for a name outside the prefix."""
        if is_inbox(name):
            return "INBOX"
        if self.prefix:
            size = len(self.prefix)
            if name[:size] != self.prefix and not (
                is_inbox(self.prefix[:-1]) and is_inbox(name[: size - 1]) and name[size - 1 : size] == self.separator
            ):
                raise NoSuchMailbox(f"mailbox names begin with {self.prefix} here")
            name = name[size:]
            if is_inbox(name):
                # INBOX has no second name, and a folder of that name would look the same.
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
        return "INBOX" + slash + rest if slash and is_inbox(first) else name

    def to_client(self, name: str) -> str:
        """The client's name."""
        if name == "INBOX":
            return name
        return self.prefix + (name if self.separator == "/" else name.replace("/", self.separator).replace(SLASH, "/"))
