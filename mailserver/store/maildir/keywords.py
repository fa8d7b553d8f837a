"""dovecot-keywords: which keyword a letter a to z in a file name stands for.

Lines are `0 Name`: the number of the letter (0 is a) and the keyword. The file is replaced before the first file name
carries a new letter, so no letter is ever without its name. Letters end at 26: a mailbox takes no 27th keyword. Names
are compared without regard to case (RFC 3501 2.3.2). It is written under the same locks as dovecot-uidlist.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from mailserver.errors import LimitReached
from mailserver.store.interfaces import KEYWORD_BIT, MAX_KEYWORDS, SYSTEM_FLAGS
from mailserver.store.maildir import safeio

FILE_NAME = "dovecot-keywords"


@frozen
class Keywords:
    """The keywords of a mailbox."""

    names: tuple[str, ...] = ()
    """By letter; "" where a letter has no name (a gap in the file)."""

    @property
    def full(self) -> bool:
        """No further keyword can be taken: PERMANENTFLAGS has no \\* then."""
        return len(self.names) >= MAX_KEYWORDS and all(self.names)

    def bit(self, name: str) -> int | None:
        """The flag bit of a system flag or keyword; None when the mailbox does not have it."""
        system = SYSTEM_FLAGS.get(name) or SYSTEM_FLAGS.get(
            name.capitalize() if name[:1] != "\\" else _system_case(name)
        )
        if system is not None:
            return system
        wanted = name.lower()
        for number, known in enumerate(self.names):
            if known and known.lower() == wanted:
                return 1 << (KEYWORD_BIT + number)
        return None

    def mask(self, names: Iterable[str]) -> int:
        """The mask of those of the names that the mailbox has."""
        mask = 0
        for name in names:
            mask |= self.bit(name) or 0
        return mask

    def flags(self, mask: int) -> list[str]:
        """Names for a mask, system flags first; letters without a name are left out."""
        found = [name for name, bit in SYSTEM_FLAGS.items() if mask & bit]
        found += [name for number, name in enumerate(self.names) if name and mask >> (KEYWORD_BIT + number) & 1]
        return found

    def including(self, names: Iterable[str]) -> Keywords:
        """These and further keywords (system flags among them are no keywords); self if there is nothing new.

        The lowest free letters are taken. Raises: LimitReached for a 27th.
        """
        known = list(self.names)
        result = self
        for name in names:
            if name.startswith("\\") or result.bit(name) is not None:
                continue
            if "" in known:
                known[known.index("")] = name
            elif len(known) < MAX_KEYWORDS:
                known.append(name)
            else:
                raise LimitReached("a mailbox takes no more than 26 keywords")
            result = Keywords(tuple(known))
        return result


def read(path: str) -> Keywords:
    """The file's keywords; none when there is no file. Lines that make no sense are passed over.

    Raises: StoreUnavailable.
    """
    try:
        data = safeio.read_file(path)
    except FileNotFoundError:
        return Keywords()
    names: list[str] = []
    for line in data.decode("utf-8", "replace").split("\n"):
        number_text, space, name = line.partition(" ")
        if not space or not name or not (number_text.isascii() and number_text.isdigit()) or len(number_text) > 2:
            continue
        number = int(number_text)
        if number >= MAX_KEYWORDS or name.lower() in (known.lower() for known in names):
            continue
        names.extend([""] * (number + 1 - len(names)))
        names[number] = names[number] or name
    return Keywords(tuple(names))


def write(path: str, keywords: Keywords) -> None:
    """Replace the file, durably. Raises: NoSpace, StoreUnavailable."""
    text = "".join(f"{number} {name}\n" for number, name in enumerate(keywords.names) if name)
    safeio.replace(path, text.encode())


def _system_case(name: str) -> str:
    return "\\" + name[1:].capitalize()
