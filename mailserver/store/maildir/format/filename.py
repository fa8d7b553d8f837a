"""Names of message files: `1276528487.M364837P9451.host,S=1355,W=1394:2,FS` and all others that exist.

The base is the part before the first ":", as Dovecot reads it. It never changes while the message lives, and
dovecot-uidlist lists it. After ":2," come the flag letters in ASCII order: D (draft), F (flagged), R (answered), S
(seen), T (deleted), P (passed: kept, not shown), and a to z for the mailbox's keywords. Unknown letters, and everything
after a ",", survive every change. Behind that "," may be further keywords (`store.further_flags`). These functions raise for
no name.

Names are str as os.fsdecode makes them (surrogates for bytes that are not UTF-8); os.fsencode gives the bytes back.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import time
from typing import NamedTuple

from mailserver.errors import LimitReached
from mailserver.store.flags import ANSWERED, DELETED, DRAFT, FLAGGED, KEYWORD_BIT, LETTERS, NARROW, SEEN
from mailserver.store.further_flags import further_mask, further_part, without_further
from mailserver.store.name_sizes import OWN_NAME

_LETTER_BITS = {"D": DRAFT, "F": FLAGGED, "R": ANSWERED, "S": SEEN, "T": DELETED} | {
    chr(ord("a") + n): 1 << (KEYWORD_BIT + n) for n in range(LETTERS)
}
_SIZE = re.compile(r",S=([0-9]{1,18})(?=[,:]|$)", re.ASCII)
_VIRTUAL_SIZE = re.compile(r",W=([0-9]{1,18})(?=[,:]|$)", re.ASCII)
_counter = itertools.count(1)
LONGEST_NAME = 255
"""Octets of a file name (NAME_MAX)."""


class MaildirName(NamedTuple):
    """A file name in parts. `format()` returns exactly the parsed name."""

    base: str
    """The message's identity: the part before the first ":"."""
    info: str | None
    """The part after that ":", None without one. It has flags only if it begins with "2,"."""

    @classmethod
    def parse(cls, name: str) -> MaildirName:
        """Parse any name."""
        base, colon, info = name.partition(":")
        return cls(base, info if colon else None)

    @property
    def letters(self) -> str:
        """The flag letters as they stand, "" if there are none."""
        return letters_of_info(self.info)

    @property
    def mask(self) -> int:
        """The flags as a mask of store.flags."""
        return info_mask(self.info)

    @property
    def size(self) -> int | None:
        """Octets on disk according to S=: a claim."""
        return _number(_SIZE, self.base)

    @property
    def virtual_size(self) -> int | None:
        """Octets with CRLF line ends according to W=: a claim; `store.name_sizes` says which are believed."""
        return _number(_VIRTUAL_SIZE, self.base)

    def with_mask(self, mask: int) -> MaildirName:
        """Return the same message with these flags. Unknown letters, and what follows them, are kept."""
        return MaildirName(self.base, _changed_info(self.info, mask))

    @staticmethod
    def suffix_with_mask(suffix: str, mask: int) -> str:
        """Do `with_mask` for the part after the base: "" or ":2,FS", say."""
        return ":" + _changed_info(suffix[1:] if suffix else None, mask)

    def format(self) -> str:
        """Return the file name."""
        return self.base if self.info is None else f"{self.base}:{self.info}"


def base_of(name: str) -> str:
    """Return the message's identity: the name up to the first ":"."""
    return name.partition(":")[0]


@functools.lru_cache(maxsize=4096)
def letters_of_info(info: str | None) -> str:
    """Return the flag letters in the part after the first ":" of a name."""
    if info is None or not info.startswith("2,"):
        return ""
    return info[2:].partition(",")[0]


@functools.lru_cache(maxsize=4096)
def flags_mask(letters: str) -> int:
    """Return the mask for flag letters; unknown letters count nothing."""
    mask = 0
    for letter in letters:
        mask |= _LETTER_BITS.get(letter, 0)
    return mask


@functools.lru_cache(maxsize=4096)
def info_mask(info: str | None) -> int:
    """Return the mask for the part after the first ":" of a name, with further keywords."""
    if info is None or not info.startswith("2,"):
        return 0
    letters, comma, rest = info[2:].partition(",")
    return flags_mask(letters) | (further_mask(rest) if comma else 0)


def new_suffix(mask: int, others: str = "") -> str:
    """Return the part after the base for a mask and unknown letters: ":2,FS"."""
    letters = ":2," + flag_letters(mask & NARROW, others)
    return letters + further_part(mask) if mask > NARROW else letters


def check_length(name: str) -> None:
    """Raise LimitReached for a file name that the system does not take, as of a message with very many keywords."""
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise LimitReached("the message has too many keywords")


@functools.lru_cache(maxsize=4096)
def flag_letters(mask: int, others: str = "") -> str:
    """Return the letters for a mask and the unknown letters `others` (such as P), in ASCII order, each once."""
    kept = {letter for letter in others if letter not in _LETTER_BITS}
    return "".join(sorted(kept | {letter for letter, bit in _LETTER_BITS.items() if mask & bit}))


@functools.lru_cache(maxsize=4096)
def other_letters(letters: str) -> str:
    """Return the unknown letters, which are to be kept."""
    return "".join(letter for letter in letters if letter not in _LETTER_BITS)


def new_base(
    host: str | None = None, *, email_id: str = "", size: int | None = None, virtual_size: int | None = None
) -> str:
    """Make a base that is unique among processes, threads and calls, with `,S=` and `,W=` if they are known.

    `email_id` is that of a message which is copied or moved (`format.email_id`).

    Sorted as text, bases of one process are in the order they were made. The pid is read at each call, as a process may
    fork. The random part covers a clock that was set back.
    """
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    unique = f"M{nanoseconds // 1000:06d}P{os.getpid()}Q{next(_counter)}R{os.urandom(4).hex()}"
    claim = f",E={email_id}" if email_id else ""
    return sized(f"{seconds}.{unique}.{escaped_host(host or os.uname().nodename)}{claim}", size, virtual_size)


def is_own(name: str) -> bool:
    """Tell whether `new_base` makes such names, in any process; no other program known does."""
    return OWN_NAME.match(os.fsencode(name)) is not None


def sized(base: str, size: int | None, virtual_size: int | None) -> str:
    """Add the known sizes to a base."""
    if size is not None:
        base += f",S={size}"
    if virtual_size is not None:
        base += f",W={virtual_size}"
    return base


@functools.lru_cache(maxsize=16)
def escaped_host(host: str) -> str:
    """Escape a host name for a file name: characters that would end the name or the base become \\ooo."""
    text = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else f"\\{ord(c) & 0o777:03o}" for c in host[:64])
    return text or "localhost"


@functools.lru_cache(maxsize=4096)
def _changed_info(info: str | None, mask: int) -> str:
    if info is None or not info.startswith("2,"):
        return new_suffix(mask)[1:]
    letters, comma, rest = info[2:].partition(",")
    changed = f"2,{flag_letters(mask & NARROW, other_letters(letters))}"
    return changed + further_part(mask) + (without_further(rest) if comma else "")


def _number(pattern: re.Pattern[str], base: str) -> int | None:
    found = pattern.search(base)
    return int(found[1]) if found else None
