"""The settings of a Maildir store, shared by its accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from mailserver.message.summary import Summary
from mailserver.store.interfaces import Bounds
from mailserver.store.maildir.format.names import PLAIN, LevelEncoding
from mailserver.store.maildir.home.file_names import FileNames

MANY: Final = 20_000
"""Maximum new files of a mailbox that the account's thread reads; a process of its own reads more."""


@frozen
class Settings:
    """Settings that all accounts of a store share."""

    summarise: Callable[[bytes], Summary]
    hostname: str
    reserved_space_root: str
    """Directory of the reserved space, on the file system of the mail."""
    encoding: LevelEncoding = PLAIN
    bounds: Bounds = Bounds()
    search_index: bool = True
    """Make a text index of each mailbox whose text is searched."""
    special_use: Mapping[str, Sequence[str]] = field(factory=dict)
    """Names of mailboxes by special use, without its backslash. The first name is made with an account."""
    quota_warnings: tuple[int, ...] = ()
    """Percentages of a quota at which the user is warned."""
    decided: Callable[[str], bool] | None = None
    """Tells whether a token was decided; see `store.receiving.Prepared`. None: nobody can tell."""
    many: int = MANY
    """Bound of `Account.bounded`."""
    file_names: FileNames = field(factory=FileNames)
    """The names of the messages that were read lately."""
