"""The file `subscriptions`, as Dovecot has it: a name a line; in version 2 with a header and escapes.

Version 2 begins with the line "V<TAB>2" and an empty one; levels are separated by tabs, and NUL, TAB, CR, LF and 0x01
are written as 0x01 with 0, t, r, n and 1 (Dovecot's str_tabescape). The old format has "A.B", as on disk. In both the
levels are encoded as the directories are. What is written is version 2.

A level that is not in that encoding is read as it stands: then it can be unsubscribed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import names

FILE_NAME = "subscriptions"
_HEADER = b"V\t2\n\n"
_UNESCAPED = {"0": "\0", "t": "\t", "r": "\r", "n": "\n", "1": "\x01"}
_ESCAPED = {value: "\x01" + key for key, value in _UNESCAPED.items()}
_ESCAPE = re.compile("\x01(.?)", re.DOTALL)
_SPECIAL = re.compile("[\0\t\r\n\x01]")


def read(root: str, encoding: names.LevelEncoding = names.PLAIN) -> frozenset[str]:
    """Read the subscribed names; none without a file. Raises: StoreUnavailable."""
    try:
        data = safeio.read_file(os.path.join(root, FILE_NAME))
    except FileNotFoundError:
        return frozenset()
    lines = data.decode("utf-8", "replace").split("\n")
    if lines[0].startswith("V\t"):
        return frozenset(_parse_line(line, encoding) for line in lines[1:] if line)
    return frozenset(_parse_old_line(line, encoding) for line in lines if line)


def write(root: str, subscribed: Iterable[str], encoding: names.LevelEncoding = names.PLAIN) -> None:
    """Replace the file, durably. Raises: NoSpace, StoreUnavailable."""
    lines = {"\t".join(_written(level, encoding) for level in name.split("/")) for name in subscribed}
    data = "".join(line + "\n" for line in sorted(lines)).encode("utf-8", "replace")
    safeio.replace(os.path.join(root, FILE_NAME), _HEADER + data)


def _parse_line(line: str, encoding: names.LevelEncoding) -> str:
    levels = (_ESCAPE.sub(lambda m: _UNESCAPED.get(m[1], m[1]), level) for level in line.split("\t"))
    return "/".join(_decoded(level, encoding) for level in levels)


def _parse_old_line(line: str, encoding: names.LevelEncoding) -> str:
    levels = line.split(".")
    return "/".join(_decoded(level, encoding) for level in levels)


def _written(level: str, encoding: names.LevelEncoding) -> str:
    return _SPECIAL.sub(lambda match: _ESCAPED[match[0]], encoding.encode(level))


def _decoded(level: str, encoding: names.LevelEncoding) -> str:
    try:
        return encoding.decode(level)
    except ValueError:
        return level
