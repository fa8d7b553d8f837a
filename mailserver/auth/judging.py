"""What is wrong with the back ends of a configuration, found with no more rights than the service has.

A back end is somebody's own code, and judging it imports and makes it. Where that would run as root, for a service that
runs as another user, a child process of that user does it: `python -m mailserver.auth.judging`.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from mailserver.auth.plugins import check_entries
from mailserver.config.model import Config, Problem, Server

PATIENCE = 30.0
"""Seconds that judging may take."""
LONGEST = 1 << 20
"""Octets of the child's answer."""
_FIELDS = ("file", "place", "value", "reason", "near", "warning")


def check(config: Config) -> list[Problem]:
    """Everything wrong with the back ends that the configuration names, users files included. Raises nothing."""
    source, entries = str(config.source), config.auth.backends
    user = _other_user(config.server)
    if user is None:
        return check_entries(source, entries)
    try:
        return _ask(source, entries, user, _group(config.server, user))
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error).strip() or "the process that judges them has ended"
        return [Problem(source, "[auth] backends", "", f"cannot be judged as user {user.pw_name!r}: {why}")]


def _other_user(server: Server) -> pwd.struct_passwd | None:
    """Whom the service will be, where that is not who we are."""
    if os.geteuid() != 0 or not server.user:
        return None
    try:
        user = pwd.getpwnam(server.user)
    except KeyError:  # a Problem of its own
        return None
    return user if user.pw_uid != 0 else None


def _group(server: Server, user: pwd.struct_passwd) -> int:
    return grp.getgrnam(server.group).gr_gid if server.group else user.pw_gid


def _ask(source: str, entries: tuple[str, ...], user: pwd.struct_passwd, group: int) -> list[Problem]:
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "HOME": user.pw_dir}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "mailserver.auth.judging"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd="/",
        user=user.pw_uid,
        group=group,
        extra_groups=os.getgrouplist(user.pw_name, group),
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps([source, entries]).encode())
            process.stdin.close()
            answer = process.stdout.read(LONGEST + 1)
        finally:
            process.kill()
            timer.cancel()
    if not answer:
        raise ValueError
    if len(answer) > LONGEST:
        msg = "too much is wrong to be told"
        raise ValueError(msg)
    return [Problem(**{field: row[field] for field in _FIELDS}) for row in json.loads(answer)]


def main() -> None:
    """Judge what comes on standard input; what a back end prints goes to standard error."""
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
