"""Configuration warnings about mail to postmaster that no user would read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mailserver.auth.backends.users_file import read_text
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.config.model import Config, Problem
from mailserver.smtp.postmaster import NAME


def check(config: Config) -> list[Problem]:
    """Warnings about [mail] postmaster, if the configuration accepts mail at all."""
    if not any(listener.family in {"lmtp", "submission"} for listener in config.listeners):
        return []
    named = config.mail.postmaster
    place = "[mail] postmaster"
    domains = [domain.name.lower() for domain in config.domains]
    wanted = {f"{NAME}@{domain}" for domain in domains}
    if config.auth.default_domain:
        # A bare name is that domain's.
        wanted.add(NAME)
    try:
        user = normalise(named) if named else ""
    except BadName as error:
        return [config.problem(place, f'"{named}"', str(error), warning=True)]
    there = _users(config, {user, *wanted} - {""})
    if there is None:
        # Another back end has users: they are not known without a lookup.
        return [] if user else [config.problem(place, "", _MISSING, warning=True)]
    if user and user not in there:
        reason = f"no users file has that user: mail to {NAME} is kept in an account without a user"
        return [config.problem(place, f'"{named}"', reason, warning=True)]
    own = {name.partition("@")[2] or config.auth.default_domain for name in there if name.partition("@")[0] == NAME}
    if not user and set(domains) - own:
        return [config.problem(place, "", _MISSING, warning=True)]
    return []


_MISSING = (
    "is missing: mail to postmaster of a domain without such a user is kept in an account that has no user;"
    " set it to the user who is to get that mail (RFC 5321 4.5.1)"
)


def _users(config: Config, names: Collection[str]) -> set[str] | None:
    """The names that are in the users files; None where not all back ends are readable users files."""
    found = set()
    for backend in config.auth.backends:
        kind, _, argument = backend.use.partition(":")
        if kind != "file":
            return None
        try:
            text, _status = read_text(Path(argument))
        except (OSError, ValueError):
            return None
        for line in text.split("\n"):
            name = line.partition(":")[0].lower()
            if name in names:
                found.add(name)
    return found
