"""All IMAP commands. To add one: a module with `COMMANDS`, its name in `FAMILIES`. `python -m mailserver.imap` prints them."""

from __future__ import annotations

from mailserver.imap.command import build_table
from mailserver.imap.commands import (
    append,
    authenticate,
    cancelupdate,
    capability,
    compress,
    copy,
    esearch,
    expunge,
    fetch,
    identify,
    idle,
    list,  # noqa: A004 - the command's name
    mailboxes,
    metadata,
    notify,
    quota,
    replace,
    search,
    select,
    sort,
    status,
    store,
    thread,
    unauthenticate,
)

FAMILIES = (
    capability,
    identify,
    authenticate,
    select,
    mailboxes,
    search,
    sort,
    thread,
    esearch,
    cancelupdate,
    list,
    status,
    append,
    replace,
    expunge,
    fetch,
    store,
    copy,
    quota,
    metadata,
    idle,
    notify,
    compress,
    unauthenticate,
)

TABLE = build_table(family.COMMANDS for family in FAMILIES)
"""Every command by its form: "FETCH", "UID FETCH"."""
