"""The keywords of a mailbox by number: dovecot-keywords has those of the letters a to z, mailserver-keywords further ones.

Lines are `0 Name`: the number of the keyword (0 is the letter a) and its name. A file is replaced before the first file name
gets a new number, so every number has its name. New keywords get the lowest free number, so the second file is there only
where a mailbox has more than 26. If there is no room for a new one, further keywords that no message has are freed. Letter case does not count in names (RFC 3501 2.3.2). The files are written under the same
locks as dovecot-uidlist.

A name in a file that is no atom (another program's "My label") would break responses. It stays in the file and its
number stays taken, but no client sees it. Nor does one see a name of the second file that a letter has as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from attrs import evolve, frozen

from mailserver.errors import BadSyntax
from mailserver.store.flags import (
    KEYWORD_BIT,
    LETTERS,
    MAX_KEYWORDS,
    SYSTEM_FLAGS,
    check_room,
    keyword_bits,
    no_room,
)
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import uidlist

FILE_NAME = "dovecot-keywords"
FURTHER_FILE_NAME = "mailserver-keywords"
_ONE_FILE = 4
"""Numbers in the signature of one file."""
_ATOM = re.compile(r'[^\x00-\x20\x7f-\U0010ffff(){%*"\\\]]+')


@frozen
class Keywords:
    """The keywords of a mailbox."""

    names: tuple[str, ...] = ()
    """By number; "" if a number has no name for clients."""
    hidden: tuple[tuple[int, str], ...] = ()
    """Numbers whose names in the file are not for clients: taken, but not shown."""

    def _free(self) -> Iterator[int]:
        """Yield the numbers without a name, rising."""
        taken = {number for number, name in enumerate(self.names) if name}.union(number for number, _ in self.hidden)
        return (number for number in range(MAX_KEYWORDS) if number not in taken)

    def bit(self, name: str) -> int | None:
        """Return the bit of a system flag or keyword; None if the mailbox does not have it."""
        if name.startswith("\\"):
            return SYSTEM_FLAGS.get("\\" + name[1:].capitalize())
        return keyword_bits(self.names).get(name.lower())

    def mask(self, names: Iterable[str]) -> int:
        """Return the mask of those of the names that the mailbox has."""
        mask = 0
        for name in names:
            mask |= self.bit(name) or 0
        return mask

    def flags(self, mask: int) -> list[str]:
        """Return the names for a mask, system flags first, without numbers that have no name."""
        found = [name for name, bit in SYSTEM_FLAGS.items() if mask & bit]
        found += [name for number, name in enumerate(self.names) if name and mask >> (KEYWORD_BIT + number) & 1]
        return found

    def without_unused(self, mask: int) -> Keywords:
        """Return these without further keywords that are not in the mask of all messages: their numbers are free.

        Letters are never freed: Dovecot may use them.
        """
        names = [
            name if number < LETTERS or mask >> KEYWORD_BIT + number & 1 else ""
            for number, name in enumerate(self.names)
        ]
        while names and not names[-1]:
            names.pop()
        return evolve(self, names=tuple(names))

    def including(self, names: Iterable[str]) -> Keywords:
        """Return these with further keywords, not counting system flags; self if nothing is new.

        New keywords get the lowest free numbers. Raises: LimitReached for too many, BadSyntax for one that is no atom.
        """
        known = list(self.names)
        lower = {name.lower() for name in known if name}
        free = self._free()
        for name in names:
            if name.startswith("\\") or name.lower() in lower:
                continue
            if not _ATOM.fullmatch(name):
                raise BadSyntax("a keyword is an atom")
            number = next(free, None)
            if number is None:
                raise no_room()
            known += [""] * (number + 1 - len(known))
            known[number] = name
            lower.add(name.lower())
        if len(lower) == len(keyword_bits(self.names)):
            return self
        check_room(known)
        return evolve(self, names=tuple(known))


def signature(path: str, further: str) -> tuple[int, ...]:
    """Return the state of both files; empty without them."""
    return (uidlist.signature(path) or ()) + (uidlist.signature(further) or ())


def is_partly_read(names: Sequence[str], known: Sequence[int], further: str) -> bool:
    """Tell whether an older version, which knows no second file, has read these names, and recorded that signature."""
    return len(names) == LETTERS and len(known) == _ONE_FILE and os.path.lexists(further)


def read(path: str, further: str = "") -> Keywords:
    """Read the keywords of both files; none without files. Invalid lines are skipped.

    Raises: StoreUnavailable.
    """
    known = _read_file(path, range(LETTERS))
    lower = {name.lower() for name in known.values()}
    hidden: dict[int, str] = {}
    for number, name in (_read_file(further, range(LETTERS, MAX_KEYWORDS)) if further else {}).items():
        (hidden if name.lower() in lower else known)[number] = name
    shown = {number: name for number, name in known.items() if _ATOM.fullmatch(name)}
    hidden |= {number: name for number, name in known.items() if number not in shown}
    return Keywords(
        tuple(shown.get(number, "") for number in range(max(shown, default=-1) + 1)), tuple(sorted(hidden.items()))
    )


def _read_file(path: str, numbers: range) -> dict[int, str]:
    try:
        data = safeio.read_file(path)
    except FileNotFoundError:
        return {}
    known: dict[int, str] = {}
    lower: set[str] = set()
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        number_text, space, name = line.partition(" ")
        if not space or not name or not (number_text.isascii() and number_text.isdigit()) or len(number_text) > 3:
            continue
        number = int(number_text)
        if number in numbers and number not in known and name.lower() not in lower:
            known[number] = name
            lower.add(name.lower())
    return known


def write(path: str, keywords: Keywords, further: str = "", *, before: Keywords | None = None) -> None:
    """Replace the files, durably, without those that are as `before`. Raises: NoSpace, StoreUnavailable."""
    lines, further_lines = _lines(keywords)
    known, further_known = ([], []) if before is None else _lines(before)
    if before is None or lines != known:
        _replace(path, lines)
    if further and further_lines != further_known:
        _replace(further, further_lines)


def _lines(keywords: Keywords) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Return number and name of the keywords with a letter, and of further ones."""
    pairs = sorted([(number, name) for number, name in enumerate(keywords.names) if name] + list(keywords.hidden))
    return [pair for pair in pairs if pair[0] < LETTERS], [pair for pair in pairs if pair[0] >= LETTERS]


def _replace(path: str, lines: Iterable[tuple[int, str]]) -> None:
    safeio.replace(path, "".join(f"{number} {name}\n" for number, name in lines).encode(errors="surrogateescape"))
