"""Mailbox names of accounts in memory: the same as those of Maildirs."""

from __future__ import annotations

import re

from mailserver.errors import BadMailboxName

INBOX = "INBOX"
LONGEST_NAME = 254
"""Octets; a Maildir++ folder is one directory name with a dot before it."""

_NOT_IN_A_LEVEL = re.compile("[\x00-\x1f\x7f-\x9f.\ud800-\udfff]")


def parents_of(name: str) -> list[str]:
    """Return the names above it: a/b/c has a and a/b."""
    levels = name.split("/")
    return ["/".join(levels[:depth]) for depth in range(1, len(levels))]


def canonical(name: str) -> str:
    """Return INBOX for INBOX in any case (RFC 3501 5.1)."""
    return INBOX if name.isascii() and name.upper() == INBOX else name


def checked_name(name: str) -> str:
    """Check that Maildir++ could have this name too. Raises: BadMailboxName."""
    levels = name.split("/")
    # Dovecot reads "~" at the beginning as a home directory, and opens no such mailbox.
    if name.startswith("~") or not all(levels) or any(_NOT_IN_A_LEVEL.search(level) for level in levels):
        raise BadMailboxName
    if len(name.encode()) > LONGEST_NAME:
        raise BadMailboxName("the mailbox name is too long")
    return canonical(name)
