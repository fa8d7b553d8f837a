"""Names of message files: `1276528487.M364837P9451.host,S=1355,W=1394:2,FS` and everything else that is found.

The base is what comes before the first ":", as Dovecot reads it: it never changes while the message lives, and it is
what dovecot-uidlist knows. After ":2," stand the flag letters in ASCII order: D (draft), F (flagged), R (answered),
S (seen), T (deleted), P (passed: kept, not shown), and a to z for the mailbox's keywords. Letters that mean nothing to
us, and whatever follows a ",", are kept through every change. No name ever makes these functions raise.

Names are str as os.fsdecode makes them (surrogates for bytes that are not UTF-8): os.fsencode gives the bytes back.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import time
from typing import NamedTuple

from mailserver.store.flags import ANSWERED, DELETED, DRAFT, FLAGGED, KEYWORD_BIT, MAX_KEYWORDS, SEEN

_LETTER_BITS = {"D": DRAFT, "F": FLAGGED, "R": ANSWERED, "S": SEEN, "T": DELETED} | {
    chr(ord("a") + n): 1 << (KEYWORD_BIT + n) for n in range(MAX_KEYWORDS)
}
_SIZE = re.compile(r",S=([0-9]{1,18})(?=[,:]|$)", re.ASCII)
_VIRTUAL_SIZE = re.compile(r",W=([0-9]{1,18})(?=[,:]|$)", re.ASCII)
_counter = itertools.count(1)


class MaildirName(NamedTuple):
    """A file name in parts; `format()` gives exactly the name that was parsed."""

    base: str
    """What identifies the message, before the first ":"."""
    info: str | None
    """What follows that ":", None when there is none. Flags are in it only when it begins with "2,"."""

    @classmethod
    def parse(cls, name: str) -> MaildirName:
        """Any name."""
        base, colon, info = name.partition(":")
        return cls(base, info if colon else None)

    @property
    def letters(self) -> str:
        """Flag letters as they stand, "" when there are none."""
        return letters_of_info(self.info)

    @property
    def mask(self) -> int:
        """The flags as a mask of store.interfaces."""
        return flags_mask(self.letters)

    @property
    def size(self) -> int | None:
        """Octets on disk as S= claims. A claim of whoever named the file: never what is told a client unchecked."""
        return _number(_SIZE, self.base)

    @property
    def virtual_size(self) -> int | None:
        """Octets with CRLF line ends as W= claims; no more to be trusted than S=."""
        return _number(_VIRTUAL_SIZE, self.base)

    def with_mask(self, mask: int) -> MaildirName:
        """The same message with these flags; letters that are no flags of ours, and what follows them, are kept."""
        return MaildirName(self.base, _changed_info(self.info, mask))

    @staticmethod
    def suffix_with_mask(suffix: str, mask: int) -> str:
        """As `with_mask`, of what follows the base: "" or ":2,FS", say."""
        return ":" + _changed_info(suffix[1:] if suffix else None, mask)

    def format(self) -> str:
        """The file name."""
        return self.base if self.info is None else f"{self.base}:{self.info}"


def base_of(name: str) -> str:
    """What identifies the message: the name up to the first ":"."""
    return name.partition(":")[0]


@functools.lru_cache(maxsize=4096)
def letters_of_info(info: str | None) -> str:
    """The flag letters in what follows the first ":" of a name."""
    if info is None or not info.startswith("2,"):
        return ""
    return info[2:].partition(",")[0]


@functools.lru_cache(maxsize=4096)
def flags_mask(letters: str) -> int:
    """Mask of store.interfaces for flag letters; letters that mean nothing to us count nothing."""
    mask = 0
    for letter in letters:
        mask |= _LETTER_BITS.get(letter, 0)
    return mask


@functools.lru_cache(maxsize=4096)
def flag_letters(mask: int, others: str = "") -> str:
    """Letters for a mask, together with `others` that are no flags of ours (such as P), in ASCII order, each once."""
    kept = {letter for letter in others if letter not in _LETTER_BITS}
    return "".join(sorted(kept | {letter for letter, bit in _LETTER_BITS.items() if mask & bit}))


@functools.lru_cache(maxsize=4096)
def other_letters(letters: str) -> str:
    """Those of the letters that are no flags of ours, to be kept."""
    return "".join(letter for letter in letters if letter not in _LETTER_BITS)


def new_base(host: str | None = None, *, size: int | None = None, virtual_size: int | None = None) -> str:
    """A base that no other process, thread or call makes, with `,S=` and `,W=` when they are known.

    Sorted as text, bases of one process stand in the order they were made.
    The pid is read at each call, for a process may fork; the random part covers a clock that was set back.
    """
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    unique = f"M{nanoseconds // 1000:06d}P{os.getpid()}Q{next(_counter)}R{os.urandom(4).hex()}"
    return sized(f"{seconds}.{unique}.{escaped_host(host or os.uname().nodename)}", size, virtual_size)


def sized(base: str, size: int | None, virtual_size: int | None) -> str:
    """The base with the sizes added that are known."""
    if size is not None:
        base += f",S={size}"
    if virtual_size is not None:
        base += f",W={virtual_size}"
    return base


@functools.lru_cache(maxsize=16)
def escaped_host(host: str) -> str:
    """A host name as it may stand in a file name: what would end the name or the base is written \\ooo."""
    text = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else f"\\{ord(c) & 0o777:03o}" for c in host[:64])
    return text or "localhost"


@functools.lru_cache(maxsize=4096)
def _changed_info(info: str | None, mask: int) -> str:
    if info is None or not info.startswith("2,"):
        return f"2,{flag_letters(mask)}"
    letters, comma, rest = info[2:].partition(",")
    return f"2,{flag_letters(mask, other_letters(letters))}{comma}{rest}"


def _number(pattern: re.Pattern[str], base: str) -> int | None:
    found = pattern.search(base)
    return int(found[1]) if found else None
