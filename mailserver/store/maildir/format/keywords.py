"""dovecot-keywords: the keywords of the letters a to z in file names.

Lines are `0 Name`: the number of the letter (0 is a) and the keyword. The file is replaced before the first file name
gets a new letter, so every letter has its name. There are 26 letters, so a mailbox refuses a 27th keyword. Letter case
does not count in names (RFC 3501 2.3.2). The file is written under the same locks as dovecot-uidlist.

A name in the file that is no atom (another program's "My label") would break responses. It stays in the file and its
letter stays taken, but no client sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import evolve, frozen

from mailserver.errors import BadSyntax, LimitReached
from mailserver.store.flags import KEYWORD_BIT, MAX_KEYWORDS, SYSTEM_FLAGS
from mailserver.store.maildir.disk import safeio

FILE_NAME = "dovecot-keywords"
_ATOM = re.compile(r'[^\x00-\x20\x7f-\U0010ffff(){%*"\\\]]+')


@frozen
class Keywords:
    """The keywords of a mailbox."""

    names: tuple[str, ...] = ()
    """By letter; "" if a letter has no name for clients."""
    hidden: tuple[tuple[int, str], ...] = ()
    """Letters whose names in the file are no atoms: taken, but not shown."""

    @property
    def full(self) -> bool:
        """True if there is no room for another keyword: PERMANENTFLAGS then has no \\*."""
        return self._free() is None

    def _free(self) -> int | None:
        """The lowest letter without a name."""
        taken = {number for number, name in enumerate(self.names) if name}.union(number for number, _ in self.hidden)
        return next((number for number in range(MAX_KEYWORDS) if number not in taken), None)

    def bit(self, name: str) -> int | None:
        """Return the bit of a system flag or keyword; None if the mailbox does not have it."""
        if name.startswith("\\"):
            return SYSTEM_FLAGS.get("\\" + name[1:].capitalize())
        wanted = name.lower()
        for number, known in enumerate(self.names):
            if known and known.lower() == wanted:
                return 1 << (KEYWORD_BIT + number)
        return None

    def mask(self, names: Iterable[str]) -> int:
        """Return the mask of those of the names that the mailbox has."""
        mask = 0
        for name in names:
            mask |= self.bit(name) or 0
        return mask

    def flags(self, mask: int) -> list[str]:
        """Return the names for a mask, system flags first, without letters that have no name."""
        found = [name for name, bit in SYSTEM_FLAGS.items() if mask & bit]
        found += [name for number, name in enumerate(self.names) if name and mask >> (KEYWORD_BIT + number) & 1]
        return found

    def including(self, names: Iterable[str]) -> Keywords:
        """Return these with further keywords, not counting system flags; self if nothing is new.

        New keywords get the lowest free letters. Raises: LimitReached for a 27th, BadSyntax for one that is no atom.
        """
        result = self
        for name in names:
            if name.startswith("\\") or result.bit(name) is not None:
                continue
            if not _ATOM.fullmatch(name):
                raise BadSyntax("a keyword is an atom")
            number = result._free()
            if number is None:
                raise LimitReached("a mailbox takes no more than 26 keywords")
            known = [*result.names, *[""] * (number + 1 - len(result.names))]
            known[number] = name
            result = evolve(result, names=tuple(known))
        return result


def read(path: str) -> Keywords:
    """Read the file's keywords; none without a file. Invalid lines are skipped.

    Raises: StoreUnavailable.
    """
    try:
        data = safeio.read_file(path)
    except FileNotFoundError:
        return Keywords()
    known: dict[int, str] = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        number_text, space, name = line.partition(" ")
        if not space or not name or not (number_text.isascii() and number_text.isdigit()) or len(number_text) > 2:
            continue
        number = int(number_text)
        if number < MAX_KEYWORDS and name.lower() not in (other.lower() for other in known.values()):
            known.setdefault(number, name)
    shown = {number: name for number, name in known.items() if _ATOM.fullmatch(name)}
    return Keywords(
        tuple(shown.get(number, "") for number in range(max(shown, default=-1) + 1)),
        tuple((number, name) for number, name in sorted(known.items()) if number not in shown),
    )


def write(path: str, keywords: Keywords) -> None:
    """Replace the file, durably. Raises: NoSpace, StoreUnavailable."""
    lines = [(number, name) for number, name in enumerate(keywords.names) if name] + list(keywords.hidden)
    safeio.replace(
        path, "".join(f"{number} {name}\n" for number, name in sorted(lines)).encode(errors="surrogateescape")
    )
