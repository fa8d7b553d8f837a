"""The mail of a run: its messages, and Maildirs full of them. The same octets for all servers in every run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from benchmarks import corpus, plain

DISTINCT = 2000
"""Messages that are written; further ones of a mailbox are links to them."""
FIRST_ARRIVAL = corpus.FIRST_DATE
"""When the first message was delivered, in seconds since 1970; each further one of DISTINCT ten minutes later."""
BETWEEN = 600
UNSEEN, FLAGGED = 3, 100
"""One of so many messages is unseen, or flagged."""
FOLDERS = 300
"""Mailboxes beside INBOX of the account that has many: thirty, and nine below each of them."""


@frozen
class Mail:
    """A generator of messages."""

    message: Callable[[int], bytes]
    """Returns the message of a seed as an MDA writes it."""
    sized: Callable[[int, int], bytes]
    """Returns a message to send of so many octets, or about so many; the second argument is its number in a series."""

    def wire(self, seed: int) -> bytes:
        """Return the message of a seed as it goes over the network."""
        return to_wire(self.message(seed))

    def wire_of_size(self, octets: int, number: int = 0) -> bytes:
        """Return a message of that size as it goes over the network; `number` is its place in a series."""
        return to_wire(self.sized(octets, number))


def to_wire(message: bytes) -> bytes:
    """Return a message with CRLF line ends."""
    return message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


PEOPLE = Mail(corpus.message, lambda octets, _number: corpus.message_of(octets))
PLAIN = Mail(plain.message, lambda octets, _number: plain.message(5, octets))


@frozen
class Original:
    """A message on disk that the messages of mailboxes are links to."""

    path: Path
    suffix: str
    """The sizes as they stand in a file name: octets of the file, and octets with CRLF line ends."""


def write(mail: Mail, directory: Path, owner: tuple[int, int]) -> list[Original]:
    """Write the distinct messages, with the times of their arrival; `owner` is a user id and a group id."""
    directory.mkdir(parents=True)
    originals = []
    for seed in range(DISTINCT):
        data = mail.message(seed)
        path = directory / str(seed)
        path.write_bytes(data)
        os.chown(path, *owner)
        arrival = FIRST_ARRIVAL + seed * BETWEEN
        os.utime(path, (arrival, arrival))
        originals.append(Original(path, f",S={len(data)},W={len(to_wire(data))}"))
    return originals


def fill(
    maildir: Path, originals: Sequence[Original], count: int, owner: tuple[int, int] | None = None, *, start: int = 0
) -> None:
    """Make a Maildir with that many messages in cur/, two thirds of them seen, beginning with original `start`."""
    for part in ("", "cur", "new", "tmp"):
        (maildir / part).mkdir(parents=True, exist_ok=True)
    if owner is not None:
        home = maildir.parent
        for path in (home.parent, home):
            os.chown(path, *owner)
        _own(maildir, owner)
    cur = os.open(maildir / "cur", os.O_RDONLY)
    try:
        for number in range(count):
            original = originals[(start + number) % len(originals)]
            flags = ("" if number % FLAGGED else "F") + ("S" if number % UNSEEN else "")
            name = f"{FIRST_ARRIVAL + number}.M{number}P1.bench{original.suffix}:2,{flags}"
            os.link(original.path, name, dst_dir_fd=cur)
    finally:
        os.close(cur)


def _own(maildir: Path, owner: tuple[int, int]) -> None:
    for path in (maildir, *(maildir / part for part in ("cur", "new", "tmp"))):
        os.chown(path, *owner)


def make_folders(maildir: Path, owner: tuple[int, int] | None = None) -> None:
    """Make FOLDERS empty mailboxes, as Maildir++ has them."""
    for number in range(FOLDERS):
        parent, child = divmod(number, 10)
        folder = maildir / (f".Project-{parent}" + (f".Part-{child}" if child else ""))
        for part in ("cur", "new", "tmp"):
            (folder / part).mkdir(parents=True)
        (folder / "maildirfolder").touch()
        if owner is not None:
            _own(folder, owner)
            os.chown(folder / "maildirfolder", *owner)
