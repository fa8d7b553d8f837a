"""Run as the configured user where the process is root: become that user, or run a module as that user by exec.

A master that is root runs a module so where it must not do the work itself: load code of a back end, talk to servers on
the internet.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mailserver.config.model import Server
from mailserver.system.children import module_command, module_environment


def other_user(server: Server) -> tuple[pwd.struct_passwd, int] | None:
    """Return the configured user and group where this process is root and they are not root's, else None.

    None for an unknown user, which is a problem of the configuration. Raises: KeyError for an unknown group.
    """
    if os.geteuid() != 0 or not server.user:
        return None
    try:
        user = pwd.getpwnam(server.user)
    except KeyError:
        return None
    if user.pw_uid == 0:
        return None
    return user, grp.getgrnam(server.group).gr_gid if server.group else user.pw_gid


def become(server: Server) -> None:
    """Give up root for the configured user, for good. Do nothing if the process is that user already.

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


@contextlib.contextmanager
def files_as(server: Server) -> Iterator[None]:
    """In the block, make and open files as the configured user, where this process is root. For processes of one thread.

    Raises: KeyError for an unknown group.
    """
    other = other_user(server)
    if other is None:
        yield
        return
    user, group = other
    groups = os.getgroups()
    os.setgroups(os.getgrouplist(user.pw_name, group))
    os.setegid(group)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class UserProcess:
    """A process that runs `python -m MODULE` once."""

    def __init__(self, module: str, other: tuple[pwd.struct_passwd, int] | None) -> None:
        """`other`: the user and group to run as, if not those of this process."""
        self._module = module
        self._other = other
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def ask(self, octets: bytes, *, seconds: float, longest: int, each: Callable[[bytes], None] | None = None) -> bytes:
        """Write the octets to its input and return its output, at most one octet more than `longest`. Blocks.

        b"" where the process ends or exceeds the time without output. `each` is called with every line as it comes; an
        exception of it ends the process. Raises: OSError.
        """
        environment = module_environment()
        identity: dict[str, Any] = {}
        if self._other is not None:
            user, group = self._other
            environment["HOME"] = user.pw_dir
            groups = os.getgrouplist(user.pw_name, group)
            identity = {"user": user.pw_uid, "group": group, "extra_groups": groups}
        with subprocess.Popen(
            module_command(self._module),
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
        """Kill the process; called from another thread."""
        self._stopped = True
        self._kill()

    def _kill(self) -> None:
        """Kill the process and its children."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
