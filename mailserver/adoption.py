"""Warnings of `check` about accounts from another server: each kind once, with an example.

None of them keeps a server from starting. A start does not check, as there may be many accounts.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mailserver.auth.backends.users_file import read_text
from mailserver.auth.schemes.passwd import BadLine, BadName, name_of, parse_line
from mailserver.config.model import Config, Problem
from mailserver.config.values import as_toml
from mailserver.store.maildir.account.survey import survey
from mailserver.wiring.mail_store import level_encoding

SECONDS: Final = 10.0
"""Time limit of the check."""

_WORDS: Final = {
    "format": "mail of Dovecot's in another format (mdbox, sdbox, mbox) is not served: have `doveadm sync` make a Maildir of it",
    "layout": "folders of Dovecot's layout `fs` are not shown: in Maildir++ they are directories such as `.Sent` and `.A.B`",
    "sieve": "Sieve scripts of Dovecot's are not run: file mail by the MTA, or by the detail of an address (user+folder)",
    "acl": "access rights of Dovecot's (dovecot-acl) have no effect: each account is its user's alone",
    "attributes": "mailbox attributes of Dovecot's (METADATA) are not served; Dovecot keeps them there",
    "quota": "quotas of Dovecot's have no effect: there are none; [limits] bounds numbers of messages and mailboxes",
    "unshown": "folders are not shown, as no name leads to their directories: rename them on disk",
}


def check(config: Config, seconds: Callable[[], float] = time.monotonic) -> list[Problem]:
    """Return warnings about what is not taken over. Raises nothing."""
    found: dict[tuple[str, str], list[str]] = {}
    unread: list[str] = []
    end = seconds() + SECONDS
    looked = 0
    late = False
    for root, home in _accounts(config):
        if seconds() > end:
            late = True
            break
        looked += 1
        try:
            for finding in survey(root, home, level_encoding(config)):
                found.setdefault((finding.kind, finding.detail), []).append(finding.path)
        except OSError as error:
            unread.append(f"{error.filename or root}: {error.strerror}")
    problems = [_problem(config, kind, detail, paths) for (kind, detail), paths in sorted(found.items())]
    if unread:
        reason = f"what another server left there is not known: {_example(unread)}"
        problems.append(config.problem("[mail] root", "", reason, warning=True))
    if late:
        reason = f"only the first {looked} accounts were looked into for what another server left there"
        problems.append(config.problem("[mail] root", "", reason, warning=True))
    return problems


def _problem(config: Config, kind: str, detail: str, paths: list[str]) -> Problem:
    if kind == "escape":
        reason = (
            f"names of folders look escaped, as by Dovecot's mailbox_list_storage_escape_char: set escape = "
            f"{as_toml(detail)} to show them as they are ({_example(paths)})"
        )
        return config.problem("[mail] escape", as_toml(config.mail.escape), reason, warning=True)
    return config.problem("[mail] root", "", f"{_WORDS[kind]} ({_example(paths)})", warning=True)


def _example(things: list[str]) -> str:
    more = f", and {len(things) - 1} more" if len(things) > 1 else ""
    return f"{things[0]}{more}"


def _accounts(config: Config) -> Iterator[tuple[str, str | None]]:
    """Yield the paths of accounts, with or without a Maildir, and their homes if a users file has them."""
    location = config.mail.location
    homes = {}
    for name, home in _homes(config):
        local, _at, domain = name.rpartition("@")
        parts = {"user": name, "local": local or domain, "domain": domain if local else ""}
        homes[location.format(root=config.mail.root, home=home, **parts)] = home
    roots = set(homes)
    if "{home}" not in location:
        pattern = location.format(root=glob.escape(str(config.mail.root)), user="*", local="*", domain="*")
        above, name = os.path.split(pattern)
        if "*" in name:
            roots.update(filter(os.path.isdir, glob.glob(pattern)))
        else:
            roots.update(os.path.join(home, name) for home in glob.glob(above) if os.path.isdir(home))
    for root in sorted(roots):
        yield root, homes.get(root)


def _homes(config: Config) -> Iterator[tuple[str, str]]:
    """Yield names and home directories of the users files. Their back end reports faults of these."""
    for backend in config.auth.backends:
        kind, _colon, path = backend.use.partition(":")
        if kind != "file":
            continue
        try:
            text, _status = read_text(Path(path))
        except (OSError, ValueError):
            continue
        for line in text.split("\n"):
            if name_of(line) is None:
                continue
            with contextlib.suppress(BadLine, BadName):
                entry = parse_line(line)
                if entry.home:
                    yield entry.name, entry.home
