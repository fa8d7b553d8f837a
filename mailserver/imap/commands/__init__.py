"""All IMAP commands. To add one: a module with `COMMANDS`, its name in `FAMILIES`. `python -m mailserver.imap` prints them."""

from __future__ import annotations

from mailserver.imap.command import build_table
from mailserver.imap.commands import (
    append,
    authenticate,
    capability,
    copy,
    expunge,
    fetch,
    idle,
    list,  # noqa: A004 - the command's name
    mailboxes,
    search,
    select,
    status,
    store,
)

FAMILIES = (
    capability,
    authenticate,
    select,
    mailboxes,
    search,
    list,
    status,
    append,
    expunge,
    fetch,
    store,
    copy,
    idle,
)

TABLE = build_table(family.COMMANDS for family in FAMILIES)
"""Every command by its form: "FETCH", "UID FETCH"."""
