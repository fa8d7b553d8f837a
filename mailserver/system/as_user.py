"""The service's user where we are root: become that user, or run a module of ours as that user by exec.

The module, octets in and octets out, is for what a master that is root must not do itself: running somebody's own code,
talking to strangers.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailserver.config.model import Server


def other_user(server: Server) -> tuple[pwd.struct_passwd, int] | None:
    """Whom the service will be, and the group, where that is not who we are. Raises: KeyError for an unknown group."""
    if os.geteuid() != 0 or not server.user:
        return None
    try:
        user = pwd.getpwnam(server.user)
    except KeyError:  # a Problem of its own
        return None
    if user.pw_uid == 0:
        return None
    return user, grp.getgrnam(server.group).gr_gid if server.group else user.pw_gid


def become(server: Server) -> None:
    """Give up root for the configured user, for good. Nothing to do if the process is that user already.

    Raises: KeyError for an unknown group.
    """
    other = other_user(server)
    if other is None:
        return
    user, group = other
    os.initgroups(user.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir


class UserProcess:
    """`python -m MODULE`, once."""

    def __init__(self, module: str, other: tuple[pwd.struct_passwd, int] | None) -> None:
        """As `other`, or as who we are."""
        self._module = module
        self._other = other
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def ask(self, octets: bytes, *, seconds: float, longest: int, each: Callable[[bytes], None] | None = None) -> bytes:
        """What it writes, at most one octet more than `longest`; b"" where it ends or is late without a word.

        `each` gets every line as it comes; what it raises ends the process. Blocks. Raises: OSError.
        """
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
        identity: dict[str, Any] = {}
        if self._other is not None:
            user, group = self._other
            environment["HOME"] = user.pw_dir
            groups = os.getgrouplist(user.pw_name, group)
            identity = {"user": user.pw_uid, "group": group, "extra_groups": groups}
        with subprocess.Popen(
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
            **identity,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            self._process = process
            timer = threading.Timer(seconds, self._kill)
            timer.start()
            try:
                if self._stopped:
                    return b""
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(octets)
                    process.stdin.close()
                answer = bytearray()
                while line := process.stdout.readline(longest + 1 - len(answer)):
                    answer += line
                    if each is not None and line.endswith(b"\n"):
                        each(line)
                return bytes(answer)
            finally:
                self._kill()
                timer.cancel()

    def stop(self) -> None:
        """End it, from another thread."""
        self._stopped = True
        self._kill()

    def _kill(self) -> None:
        """With what it has started."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
