"""The accounts of a run, and their mail, which is made on both servers before the first scenario that needs it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import define, field, frozen

from benchmarks.client import Imap, Lines
from benchmarks.mail import Mail, Original, fill, make_folders, write
from benchmarks.servers import DovecotServer, Mailserver, TestedServer

PEOPLE = 200
"""Accounts with mailboxes of the sizes that people have."""
LARGE = 1_000_000
"""Messages of the largest mailbox, with --large."""
SIZES = {
    "k1": 1000,
    "k10": 10_000,
    "k100": 100_000,
    "large": LARGE,
    "changed": 10_000,
    "foreign": 1000,
    "folders": 100,
    "scratch": 0,
    "lmtp": 0,
}
"""Messages in the INBOX of each account that serves for one thing."""
WARM, WARM_SIZE = 6, 100
"""Small accounts for the first sessions of a process."""
USERS = len(SIZES) + WARM + PEOPLE
HOSTILE_USERS = len(SIZES) + WARM
"""Further accounts, for a run with hostile messages."""


def size_of(number: int) -> int:
    """Return the messages of one of the accounts of people: 40 to 4,000, half of them below 300."""
    return min(4000, max(40, int(random.Random(number).lognormvariate(5.7, 1.1))))


@frozen
class Accounts:
    """User names by the size or use of their INBOX, and the passwords."""

    passwords: dict[str, str]
    mail: Mail
    k1: str
    k10: str
    k100: str
    large: str
    changed: str
    foreign: str
    folders: str
    scratch: str
    lmtp: str
    warm: tuple[str, ...]
    people: tuple[str, ...]

    def imap(self, side: TestedServer, user: str, *, tls: bool = False, select: bool = True) -> Imap:
        """Open a session and log in."""
        client = Imap(side.ports["imaps" if tls else "imap"], tls=side.ca if tls else None)
        client.login(user, self.passwords[user])
        if select:
            client.command(b"SELECT INBOX")
        return client

    def pop3(self, side: TestedServer, user: str) -> Lines:
        """Open a session and log in."""
        client = Lines(side.ports["pop3"])
        client.reply(b"+OK")
        client.ask(b"USER %b\r\n" % user.encode(), b"+OK")
        client.ask(b"PASS %b\r\n" % self.passwords[user].encode(), b"+OK")
        return client

    def size(self, user: str) -> int:
        """Return the messages that the INBOX of a user had at first."""
        if user in self.people:
            return size_of(self.people.index(user))
        if user in self.warm:
            return WARM_SIZE
        return next(size for name, size in SIZES.items() if getattr(self, name) == user)


def name_accounts(passwords: dict[str, str], mail: Mail, start: int = 0) -> Accounts:
    """Return the accounts of a run, from the user of that number on; without people where there are not enough users."""
    users = [name for name in passwords if name.startswith("u")][start:]
    assert len(users) >= len(SIZES) + WARM, len(users)
    names = dict(zip(SIZES, users, strict=False))
    warm, people = users[len(SIZES) : len(SIZES) + WARM], users[len(SIZES) + WARM : USERS]
    return Accounts(passwords, mail, **names, warm=tuple(warm), people=tuple(people))


@define
class Mailboxes:
    """The mail of the accounts on the servers, made as it is needed."""

    accounts: Accounts
    ours: Mailserver
    stock: Mailserver | None
    theirs: DovecotServer
    directory: Path
    _originals: list[Original] = field(factory=list)
    _made: set[str] = field(factory=set)

    def make(self, names: Iterable[str]) -> None:
        """Make those that are not there yet; names are those of fields of `Accounts`."""
        for name in names:
            if name not in self._made:
                self._made.add(name)
                self._make(name)

    def _make(self, name: str) -> None:
        owner = self.theirs.dovecot.owner
        ids = owner.pw_uid, owner.pw_gid
        if not self._originals:
            self._originals = write(self.accounts.mail, self.directory, ids)
        found = getattr(self.accounts, name)
        users: Sequence[str] = found if isinstance(found, tuple) else (found,)
        for number, user in enumerate(users):
            targets: list[tuple[Path, tuple[int, int] | None]] = [
                (self.ours.maildir(user), None),
                (self.theirs.maildir(user), ids),
            ]
            if self.stock is not None and name != "people":  # which are for loads alone
                targets.append((self.stock.maildir(user), None))
            for maildir, each in targets:
                fill(maildir, self._originals, self.accounts.size(user), each, start=number * 37)
                if name == "folders":
                    make_folders(maildir, each)
