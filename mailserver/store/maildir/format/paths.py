"""The paths of one mailbox."""

from __future__ import annotations

import os

from mailserver.store.maildir.format import keywords, uidlist


class MailboxPaths:
    """Directories and files of one mailbox."""

    __slots__ = ("cur", "directory", "encoded", "further_keywords", "keywords", "new", "uidlist")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.encoded = os.fsencode(directory)
        """The directory as the system has it."""
        self.new = f"{directory}/new"
        """New messages that no session has reported yet."""
        self.cur = f"{directory}/cur"
        """Reported messages, and messages with flags."""
        self.uidlist = f"{directory}/{uidlist.FILE_NAME}"
        """UIDs."""
        self.keywords = f"{directory}/{keywords.FILE_NAME}"
        """Keyword letters."""
        self.further_keywords = f"{directory}/{keywords.FURTHER_FILE_NAME}"
        """Keywords that have no letter."""

    def place(self, place: int) -> str:
        """Return new/ for 0, cur/ for 1."""
        return self.cur if place else self.new
