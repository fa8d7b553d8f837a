"""Checks of filters where they are set: by SETMETADATA (RFC 5466 3.2), and in the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.config.model import Config, Problem
from mailserver.errors import Cannot, MailError
from mailserver.imap.search.filters import PRIVATE, SHARED, criterion, is_filter_name
from mailserver.imap.search.keys import read_keys
from mailserver.imap.search.parser import CriteriaParser


def check_entries(changes: Mapping[str, bytes | None]) -> None:
    """Check new values of the server's entries. Raises: BadFilter, LimitReached, and Cannot for a name that no filter can have."""
    for entry, value in changes.items():
        if value is not None and entry.startswith((PRIVATE, SHARED)):
            name = entry.removeprefix(PRIVATE).removeprefix(SHARED)
            if not is_filter_name(name):
                raise Cannot("the name of a filter is an atom without a slash")
            check_criterion(value)


def check_criterion(value: bytes) -> None:
    """Check a criterion without a mailbox; filters that it names need not exist. Raises: BadFilter, LimitReached."""
    with criterion(value, "the value") as reader:
        read_keys(CriteriaParser(reader))


def check(config: Config) -> list[Problem]:
    """Find the problems of the shared filters."""
    problems, names = [], set()
    for name, keys in config.imap.filters.items():
        reason = ""
        if not is_filter_name(name):
            reason = "the name of a filter is an atom without a slash (RFC 5466 4)"
        elif name.lower() in names:
            reason = "two filters have this name, whose case does not matter"
        else:
            try:
                check_criterion(" ".join(keys).encode("utf-8"))
            except MailError as error:
                reason = error.sentence
        names.add(name.lower())
        if reason:
            problems.append(config.problem("[imap] filters", f'"{name}"', reason))
    return problems
