"""Delegates of a directory: accounts that may log in as another account, or as each account of a domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from attrs import frozen

from mailserver.directory import changing, statements
from mailserver.directory.changing import Author, recording
from mailserver.directory.database import Database
from mailserver.directory.model import Missing

ADDED: Final = "delegate added"
CHANGED: Final = "delegate changed"
REMOVED: Final = "delegate removed"


@frozen
class StoredDelegate:
    """The right of one account to log in as others."""

    account: str
    """The account that logs in, with its own password."""
    over: str
    """The account that it logs in as, or a domain: then each account of it. It may be of another back end."""
    expires: int | None = None
    """Seconds since 1970; None: never."""
    why: str = ""

    def is_valid(self, now: float) -> bool:
        """Has it not expired?"""
        return self.expires is None or self.expires > now


def may_act_for(database: Database, account: str, user: str, domain: str, now: int) -> bool:
    """May the account log in as that user of that domain? Raises: DirectoryUnavailable."""
    return bool(database.rows(statements.MAY_ACT_FOR, account=account, user=user, domain=domain, now=now))


def delegates(database: Database) -> Iterator[StoredDelegate]:
    """All, by account. Raises: DirectoryUnavailable."""
    for account, over, expires, why in database.rows(statements.DELEGATES):
        yield StoredDelegate(str(account), str(over), cast("int | None", expires), str(why))


def find_delegate(database: Database, account: str, over: str) -> StoredDelegate | None:
    """The delegate with exactly these names. Raises: DirectoryUnavailable."""
    return next((each for each in delegates(database) if (each.account, each.over) == (account, over)), None)


def put_delegate(database: Database, author: Author, new: StoredDelegate) -> None:
    """Add a delegate, or replace the one with its names. Raises: Missing for its account, DirectoryUnavailable."""
    with recording(database, author) as record:
        account = changing.account_id(database, new.account)
        replaced = database.change(statements.DELETE_DELEGATE, account=account, over=new.over)
        database.change(statements.ADD_DELEGATE, account=account, over=new.over, expires=new.expires, why=new.why)
        record.add(CHANGED if replaced else ADDED, new.account, over=new.over, expires=new.expires, why=new.why)


def remove_delegate(database: Database, author: Author, account: str, over: str) -> None:
    """Remove a delegate. Raises: Missing, DirectoryUnavailable."""
    with recording(database, author) as record:
        if not database.change(statements.DELETE_DELEGATE, account=changing.account_id(database, account), over=over):
            raise Missing(f"{account} over {over}", "delegate")
        record.add(REMOVED, account, over=over)


def next_expiry(database: Database, after: int) -> int | None:
    """The time at which the first delegate after `after` expires; None if none does. Raises: DirectoryUnavailable."""
    return cast("int | None", database.rows(statements.NEXT_DELEGATE_EXPIRY, after=after)[0][0])
