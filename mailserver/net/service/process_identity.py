"""What root makes for the configured user before it becomes that user, and what a process may use."""

from __future__ import annotations

import grp
import os
import pwd
import resource
import stat
from pathlib import Path

from mailserver.config.model import Server
from mailserver.net.log.events import log
from mailserver.tls.state.history import make_directory

ROOT_RUNTIME_MODE = 0o711
"""Of root's own runtime_dir: others may pass through, to sockets that are theirs."""

SPARE_FILES = 1000
"""Files beside those of the clients: the store's, the index's, the log's."""


def give_runtime_dir(server: Server) -> None:
    """As root, make the directory of the control socket, for whoever will have the socket in it.

    With workers that is root itself: the administrator's command, run by root, believes who answers there, so the user
    that serves must not be able to put another socket in its place. Without, it is the configured user, to whom one
    that systemd made is given as well; systemd makes it for root, who is its unit's user. Raises: OSError.
    """
    identity = identity_to_take(server)
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
        return
    if made:
        directory.mkdir(mode=0o700, parents=True)
    if made or str(directory) in os.environ.get("RUNTIME_DIRECTORY", "").split(":"):
        os.chown(directory, identity[0].pw_uid, identity[1])


def _take_back(directory: Path, uid: int) -> None:
    """Make a directory root's that an earlier start gave to the service's user. One with more than sockets stays as it is."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(opened).st_uid != uid:
            return
        modes = [os.stat(name, dir_fd=opened, follow_symlinks=False).st_mode for name in os.listdir(opened)]
        if all(map(stat.S_ISSOCK, modes)):
            os.fchown(opened, 0, 0)
            os.fchmod(opened, ROOT_RUNTIME_MODE)
    finally:
        os.close(opened)


def give_state_dir(server: Server) -> None:
    """As root, make the directory of certificates for the configured user, where that one is to read the keys.

    One that is there stays as it is. Raises: OSError.
    """
    identity = identity_to_take(server)
    if identity is not None:
        make_directory(server.state_dir, (identity[0].pw_uid, identity[1]))


def identity_to_take(server: Server) -> tuple[pwd.struct_passwd, int] | None:
    """Whom root must become, and the group; None if nobody else."""
    if os.getuid() != 0 or not server.user:
        return None
    try:
        user = pwd.getpwnam(server.user)
        group = grp.getgrnam(server.group).gr_gid if server.group else user.pw_gid
    except KeyError:  # a problem of the configuration, told as such
        return None
    return (user, group) if user.pw_uid != 0 else None


def allow_files(connections: int, sockets: int = 0) -> None:
    """Raise the limit of open files as far as it may be, and say so if what is to be open does not fit.

    `sockets`: that listen.
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
