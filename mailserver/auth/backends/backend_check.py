"""The check of a configuration's back ends, with no more rights than the service has.

A back end is third-party code, and the check imports and instantiates it. If that would run as root for a service of
another user, a child process of that user does it: `python -m mailserver.auth.backends.backend_check`.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from typing import Any

from mailserver.auth.plugins import check_entries
from mailserver.config.model import Config, Problem
from mailserver.system.as_user import UserProcess, other_user

TIMEOUT = 30.0
"""Seconds that the check may take."""
MAX_ANSWER = 1 << 20
"""Octets of the child's answer."""
_FIELDS = ("file", "place", "value", "reason", "near", "warning")


def check(config: Config) -> list[Problem]:
    """Find every problem of the back ends that the configuration names, users files included. Raises nothing."""
    source, entries = str(config.source), tuple(each.use for each in config.auth.backends)
    other = other_user(config.server)
    if other is None:
        return check_entries(source, entries)
    user, group = other
    try:
        return _ask(source, entries, user, group)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error).strip() or "the child process that checks them has ended"
        return [Problem(source, "[auth] backends", "", f"cannot be checked as user {user.pw_name!r}: {why}")]


def _ask(source: str, entries: tuple[str, ...], user: pwd.struct_passwd, group: int) -> list[Problem]:
    child = UserProcess("mailserver.auth.backends.backend_check", (user, group))
    answer = child.ask(json.dumps([source, entries]).encode(), seconds=TIMEOUT, longest=MAX_ANSWER)
    if not answer:
        raise ValueError
    if len(answer) > MAX_ANSWER:
        msg = "there are too many problems to list"
        raise ValueError(msg)
    return [Problem(**{field: row[field] for field in _FIELDS}) for row in json.loads(answer)]


def main() -> None:
    """Check the back ends named on standard input. Output of a back end goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    source, entries = json.load(sys.stdin)
    rows: list[dict[str, Any]] = [
        {field: getattr(problem, field) for field in _FIELDS} for problem in check_entries(source, tuple(entries))
    ]
    with open(answer, "wb") as file:
        file.write(json.dumps(rows).encode())


if __name__ == "__main__":
    main()
