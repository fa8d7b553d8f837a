"""A survey of what another server left in an account and is not taken over: scripts, rights, attributes, quotas, odd
names.

It reads names of directories alone, opens no file and follows no link.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal

from attrs import frozen

from mailserver.store.maildir.format.names import LevelEncoding
from mailserver.store.maildir.home.folders import Layout

Kind = Literal["format", "layout", "sieve", "acl", "attributes", "quota", "escape", "unshown"]

_IN_HOME: Final[dict[str, Kind]] = {
    ".dovecot.sieve": "sieve",
    "sieve": "sieve",
    "dovecot-attributes": "attributes",
}
_IN_MAILDIR: Final[dict[str, Kind]] = {
    **_IN_HOME,
    "dovecot-acl": "acl",
    "maildirsize": "quota",
}
_PARTS: Final = frozenset({"cur", "new", "tmp"})
_PROBABLE: Final = r"""[%^\\+:=#$@!*'"()\[\]{}<>|;?]"""
"""Characters that administrators choose for escapes, without letters, digits and usual characters of names."""
_ESCAPED: Final = re.compile(rf"({_PROBABLE})(?:2[ef]|7e)")


@frozen
class Finding:
    """One thing that is not taken over."""

    kind: Kind
    path: str
    detail: str = ""
    """Of "escape": the character."""


def survey(root: str, home: str | None, encoding: LevelEncoding) -> Iterator[Finding]:
    """Survey a Maildir, which need not exist, and its home, by default the directory above it.

    Raises: OSError for what cannot be read; a home that does not exist has nothing.
    """
    above = home or os.path.dirname(root)
    if os.path.isdir(above) and above != root:
        inside = sorted(os.listdir(above))
        yield from _named(above, inside, _IN_HOME)
        for directory in (above, *(os.path.join(above, name) for name in inside if name[0] != ".")):
            if _is_other_format(directory):
                yield Finding("format", directory)
    if not os.path.isdir(root):
        return
    names = sorted(os.listdir(root))
    yield from _named(root, names, _IN_MAILDIR)
    layout = Layout(root, encoding)
    folders = [name for name in names if name[0] == "." and name[1:2] not in {"", "."} and _is_folder(root, name)]
    character = _escape_character(folders)
    if character and character != encoding.escape:
        first = next(name for name in folders if re.search(re.escape(character) + "(?:2[ef]|7e)", name))
        yield Finding("escape", os.path.join(root, first), character)
    for name in names:
        if name[0] != "." and name not in _PARTS and not name.startswith("mailserver-") and _is_folder(root, name):
            yield Finding("layout", os.path.join(root, name))
    for name in folders:
        if layout.name(name) is None:
            yield Finding("unshown", os.path.join(root, name))
        if os.path.lexists(os.path.join(root, name, "dovecot-acl")):
            yield Finding("acl", os.path.join(root, name, "dovecot-acl"))


def _named(directory: str, names: list[str], kinds: dict[str, Kind]) -> Iterator[Finding]:
    for name in names:
        kind = kinds.get(name)
        if kind is not None:
            yield Finding(kind, os.path.join(directory, name))


def _is_folder(root: str, name: str) -> bool:
    return os.path.isdir(os.path.join(root, name, "cur"))


def _is_other_format(directory: str) -> bool:
    """Tell whether a directory has mail of Dovecot's formats mdbox, sdbox or mbox."""
    mailboxes = os.path.join(directory, "mailboxes")
    if os.path.isdir(mailboxes):
        return any(os.path.isdir(os.path.join(mailboxes, name, "dbox-Mails")) for name in os.listdir(mailboxes))
    return os.path.isdir(os.path.join(directory, ".imap"))


def _escape_character(folders: list[str]) -> str:
    """Return the character that begins escapes in most of the names, and nothing else."""
    counted = Counter[str](character for name in folders for character in set(_ESCAPED.findall(name)))
    for character, _count in counted.most_common():
        bare = re.compile(re.escape(character) + "(?![0-9a-f]{2})")
        if not any(bare.search(name) for name in folders):
            return character
    return ""
