"""Who the service is: the change from root to the configured user, and what root gives that user before."""

from __future__ import annotations

import grp
import os
import pwd
import resource

from mailserver.config.model import Server
from mailserver.net.log import log
from mailserver.tls.history import make_directory

SPARE_FILES = 1000
"""Files beside those of the clients: the store's, the index's, the log's."""


def become(server: Server) -> None:
    """Give up root for the configured user, for good. Nothing to do if the process is that user already."""
    identity = identity_to_take(server)
    if identity is None:
        return
    user, group = identity
    os.initgroups(user.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    os.environ["HOME"] = user.pw_dir


def give_runtime_dir(server: Server) -> None:
    """As root, make the directory of the control socket for the configured user, or give it one that systemd made.

    systemd makes it for root, who is its unit's user. Raises: OSError.
    """
    identity = identity_to_take(server)
    if identity is None:
        return
    directory = server.runtime_dir
    made = not directory.exists()
    if made:
        directory.mkdir(mode=0o700, parents=True)
    if made or str(directory) in os.environ.get("RUNTIME_DIRECTORY", "").split(":"):
        os.chown(directory, identity[0].pw_uid, identity[1])


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
        log.warn("{line}", line=f"{many} do not fit under the limit of {hard} open files")
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
