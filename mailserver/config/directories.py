"""Checks that the service can write to its directories and run its interpreter, with the rights of its user."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys
from pathlib import Path

from attrs import frozen

from mailserver.config.model import Config, Problem
from mailserver.config.strict_modes import Trust, trust, unsafe
from mailserver.config.values import as_toml


@frozen
class Identity:
    """A user and its groups."""

    uid: int
    gids: frozenset[int]

    @property
    def name(self) -> str:
        """The user's name, or its number if it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def may(self, status: os.stat_result, wanted: int) -> bool:
        """Does the mode of a file grant `wanted` (os.R_OK, os.W_OK, os.X_OK together)?"""
        if self.uid == 0:
            return True
        if status.st_uid == self.uid:
            granted = status.st_mode >> 6
        elif status.st_gid in self.gids:
            granted = status.st_mode >> 3
        else:
            granted = status.st_mode
        return granted & wanted == wanted

    def may_open(self, path: Path) -> bool:
        """May it read an existing file, through the directories above it?"""
        try:
            reachable = all(self.may(os.stat(parent), os.X_OK) for parent in path.parents)
            return reachable and self.may(os.stat(path), os.R_OK)
        except OSError:
            return False


def service_identity(config: Config) -> Identity:
    """The identity of the service after it has bound its ports: the configured user, else the current one."""
    try:
        user = pwd.getpwnam(config.server.user) if config.server.user else pwd.getpwuid(os.geteuid())
        groups = set(os.getgrouplist(user.pw_name, user.pw_gid)) if config.server.user else set(os.getgroups())
        groups.add(grp.getgrnam(config.server.group).gr_gid if config.server.group else user.pw_gid)
    except KeyError:
        # `check` reports an unknown user. In containers the current user may have no account.
        return Identity(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))
    return Identity(user.pw_uid, frozenset(groups))


def reader_trust(config: Config) -> Trust:
    """The users trusted by the process that reads the keys: without workers it runs as the service's user."""
    if os.geteuid() == 0 and config.server.workers == 0:
        return trust().with_user(service_identity(config).uid)
    return trust()


def check_directories(config: Config) -> list[Problem]:
    """Find directories that cannot be written or made, and an interpreter that cannot be run. Makes nothing."""
    identity = service_identity(config)
    binder = Identity(0, identity.gids) if has_root_master(config) else identity
    places = [("[server] runtime_dir", config.server.runtime_dir, binder), ("[mail] root", config.mail.root, identity)]
    if config.queue.directory is not None:
        places.append(("[queue] directory", config.queue.directory, identity))
    places += [
        (f"{listener.place} socket", listener.socket.parent, binder)
        for listener in config.listeners
        if listener.socket is not None
    ]
    if config.embedded or (os.geteuid() == 0 and _is_made_at_start(config.server.runtime_dir)):
        del places[0]
    found = ((place, directory, _fault(directory, who)) for place, directory, who in places)
    problems = [config.problem(place, as_toml(path), fault) for place, path, fault in found if fault]
    problems += _check_state_dir(config, identity)
    return [
        *_check_interpreter(config, identity),
        *problems,
        *_check_control(config, identity),
        *_check_log_file(config, identity),
    ]


def has_root_master(config: Config) -> bool:
    """Does a master keep running as root, while workers run as another user?"""
    return os.geteuid() == 0 and config.server.workers != 0 and not config.embedded


def _check_control(config: Config, identity: Identity) -> list[Problem]:
    """Warn if other users could replace the control socket of a root master: commands would trust them, and send them keys."""
    directory = config.server.runtime_dir
    if not has_root_master(config) or not (fault := unsafe(directory, trust())):
        return []
    reason = f"lets other users replace the control socket: {fault}"
    if fault.startswith(f"{directory} ") and _is_reclaimed_at_start(directory, identity.uid):
        reason = f"{reason}; the next start makes it root's"
    return [config.problem("[server] runtime_dir", as_toml(directory), reason, warning=True)]


def _is_reclaimed_at_start(directory: Path, uid: int) -> bool:
    """Does the next start give the directory to root? It must belong to the service's user and contain only sockets."""
    try:
        return os.stat(directory).st_uid == uid and all(
            stat.S_ISSOCK(os.lstat(each).st_mode) for each in directory.iterdir()
        )
    except OSError:
        return False


def _check_state_dir(config: Config, identity: Identity) -> list[Problem]:
    """Check that the process that reads the keys can write state_dir: the master, or the only process. A warning."""
    server = config.server
    if has_root_master(config):
        identity = Identity(0, identity.gids)
    elif os.geteuid() == 0 and not server.state_dir.exists():
        return []  # made at the start
    fault = _fault(server.state_dir, identity)
    if not fault:
        return []
    reason = f"{fault}; certificates are not stored, and none can be added"
    return [config.problem("[server] state_dir", as_toml(server.state_dir), reason, warning=True)]


def _check_log_file(config: Config, identity: Identity) -> list[Problem]:
    """Check the log file if it exists, else its directory, which the start does not make."""
    path = config.server.log_file
    if path is None:
        return []
    fault = ""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        fault = _fault(path.parent, identity) if path.parent.exists() else "does not exist"
        fault = fault and f"its directory {path.parent} {fault}"
    except OSError as error:
        fault = f"cannot be used: {error.strerror}"
    else:
        if stat.S_ISDIR(status.st_mode):
            fault = "must be a file, not a directory"
        elif stat.S_ISFIFO(status.st_mode):
            fault = "must be a file: a pipe without a reader would block the server; without log_file the log goes to standard output"
        elif not identity.may(status, os.W_OK) or not all(_may(identity, parent) for parent in path.parents):
            fault = f"cannot be written by user {_name(identity.uid)}"
    return [config.problem("[server] log_file", as_toml(path), fault)] if fault else []


def _check_interpreter(config: Config, identity: Identity) -> list[Problem]:
    """Check that the service's user can run Python: hash processes start after the process has switched to it."""
    if os.geteuid() != 0 or identity.uid == 0:
        return []
    closed = _closed_to(identity, Path(sys.executable))
    if closed is None:
        return []
    reason = f"cannot run the Python of this server, {sys.executable}: it may not {closed}"
    return [config.problem("[server] user", as_toml(config.server.user), reason)]


def _closed_to(identity: Identity, program: Path) -> str | None:
    """Return what the identity may not do on the way to a program, following symbolic links; None if it may run it."""
    target = program.resolve()
    # The directories of the link and of its target: a virtual environment's python is a link.
    for directory in dict.fromkeys((*reversed(program.absolute().parents), *reversed(target.parents))):
        if not _may(identity, directory):
            return f"enter {directory}"
    return None if _may(identity, target) else f"execute {target}"


def _may(identity: Identity, path: Path) -> bool:
    """May the identity enter the directory, or execute the file?"""
    try:
        return identity.may(os.stat(path), os.X_OK)
    except OSError:
        return False


def _is_made_at_start(runtime_dir: Path) -> bool:
    """Does the start as root make the directory, or take it over from systemd?"""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")
    return not runtime_dir.exists() or str(runtime_dir) in given


def _fault(directory: Path, identity: Identity) -> str:
    """The reason why a directory cannot be used, or ""."""
    for path in (directory, *directory.parents):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue
        except OSError as fault:
            return f"cannot be used: {fault.strerror}"
        if not stat.S_ISDIR(status.st_mode):
            return "must be a directory" if path == directory else f"cannot be made: {path} is not a directory"
        if not identity.may(status, os.W_OK | os.X_OK):
            if path == directory:
                return f"cannot be written by user {_name(identity.uid)}"
            return f"does not exist, and user {_name(identity.uid)} cannot make it in {path}"
        return ""
    return "does not exist"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
