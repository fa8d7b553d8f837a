"""Prepare a process that starts as root: directories for the configured user, and the limit of open files."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import stat
from pathlib import Path

from mailserver.config.model import Server
from mailserver.explain.log import DIRECTORY as LOGIN_RECORDS
from mailserver.net.log.events import log
from mailserver.system.as_user import other_user
from mailserver.tls.state.history import make_directory

ROOT_RUNTIME_MODE = 0o711
"""Mode of root's own runtime_dir: other users may pass through it to their sockets."""

SPARE_FILES = 1000
"""Open files beside the connections: those of the store, of the index and of the log."""


def give_runtime_dir(server: Server) -> None:
    """As root, make the directory of the control socket for the user that will own the socket.

    With workers that is root: the administrator's command, run by root, trusts the answers of this socket, so the
    configured user must not be able to replace it. Without workers it is the configured user, who also gets a directory
    that systemd has made; systemd makes it for root, the user of the unit. Raises: OSError.
    """
    identity = _identity(server)
    if identity is None:
        return
    directory = server.runtime_dir
    made = not directory.exists()
    if server.workers != 0:
        if made:
            directory.mkdir(parents=True)
            os.chmod(directory, ROOT_RUNTIME_MODE)
        else:
            _take_back(directory, identity[0].pw_uid)
        with contextlib.suppress(OSError):
            # Nothing is worth a refused start here: the workers log why they cannot write.
            _give_login_records(directory, (identity[0].pw_uid, identity[1]))
        return
    if made:
        directory.mkdir(mode=0o700, parents=True)
    if made or str(directory) in os.environ.get("RUNTIME_DIRECTORY", "").split(":"):
        os.chown(directory, identity[0].pw_uid, identity[1])


def _give_login_records(directory: Path, owner: tuple[int, int]) -> None:
    """Make the directory of the workers' records of logins in root's own runtime_dir.

    One of another user, as after a change of `user`, is emptied: the new user could not write the old files.
    """
    if os.stat(directory).st_uid != 0:
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory / LOGIN_RECORDS, 0o700)
    opened = os.open(directory / LOGIN_RECORDS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(opened).st_uid != owner[0]:
            for name in os.listdir(opened):
                os.unlink(name, dir_fd=opened)
            os.fchown(opened, *owner)
    finally:
        os.close(opened)


def _take_back(directory: Path, uid: int) -> None:
    """Give a directory back to root that an earlier start gave to the configured user, if it has nothing but sockets and records."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(opened).st_uid != uid:
            return
        names = [name for name in os.listdir(opened) if name != LOGIN_RECORDS]
        modes = [os.stat(name, dir_fd=opened, follow_symlinks=False).st_mode for name in names]
        if all(map(stat.S_ISSOCK, modes)):
            os.fchown(opened, 0, 0)
            os.fchmod(opened, ROOT_RUNTIME_MODE)
    finally:
        os.close(opened)


def give_state_dir(server: Server) -> None:
    """As root, make the directory of certificates for the configured user, where that user reads the keys.

    A present one stays as it is. Raises: OSError.
    """
    identity = _identity(server)
    if identity is not None:
        make_directory(server.state_dir, (identity[0].pw_uid, identity[1]))


def _identity(server: Server) -> tuple[pwd.struct_passwd, int] | None:
    try:
        return other_user(server)
    except KeyError:  # reported as a problem of the configuration
        return None


def allow_files(connections: int, sockets: int = 0) -> None:
    """Raise the limit of open files as far as allowed, and log a warning if that is too low.

    `sockets`: number of listening sockets.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + sockets + SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        many = f"{connections} connections" if connections else f"{sockets} listening sockets"
        log.warn(
            "{what} do not fit under the limit of {limit} open files", event="few-descriptors", what=many, limit=hard
        )
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
