"""Permissions of trusted files, checked as by sshd's StrictModes: of the file, and of every step of its path.

A file is only as safe as its directories, up to the root: a user who may write one of them can replace the file. In a
sticky directory an entry is safe if it belongs to a trusted user. Symbolic links are followed one by one, as the system
does, and their targets are checked as well.

Trusted users are root, the user of this process, and every user who may change the program itself, as the program could do
all that the file could. So root can run a checkout that belongs to another user.
"""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

_MOST_LINKS: Final = 40
"""The limit of Linux."""
_ACL: Final = "system.posix_acl_access"


@frozen
class Trust:
    """Users and groups that may write a trusted file."""

    users: frozenset[int]
    groups: frozenset[int] = frozenset()
    everybody: bool = False

    def with_user(self, uid: int) -> Trust:
        """The same with another trusted user."""
        return evolve(self, users=self.users | {uid})


def trust() -> Trust:
    """Root, the user of this process, and all who may change this program."""
    return _trust(os.geteuid())


@functools.cache
def _trust(uid: int) -> Trust:
    users, groups, everybody = {0, uid}, {0}, False
    for _path, status in _steps(Path(__file__)):
        users.add(status.st_uid)
        if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
            continue
        if status.st_mode & stat.S_IWGRP:
            groups.add(status.st_gid)
        everybody = everybody or bool(status.st_mode & stat.S_IWOTH)
    return Trust(frozenset(users), frozenset(groups), everybody)


def unsafe(path: Path, trusted: Trust) -> str:
    """Describe how an untrusted user could change the file of a path; "" if none can. Raises nothing.

    For a path that does not exist only the existing directories are checked.
    """
    return next((fault for step, status in _steps(path) if (fault := _fault(step, status, trusted))), "")


def program_fault() -> str:
    """Describe how a user other than root and this process's could change the program; "" if none can."""
    bare = Trust(frozenset({0, os.geteuid()}), frozenset({0}))
    return unsafe(Path(__file__), bare) or unsafe(Path(sys.executable), bare)


def user_name(uid: int) -> str:
    """The name of a user, or its number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _steps(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every step of a path from the root on: directories, links in sticky directories, and the file itself."""
    rest = list(reversed(Path(os.path.abspath(path)).parts[1:]))
    at, links = "/", 0
    try:
        status = os.lstat(at)
        yield at, status
        while rest:
            step = rest.pop()
            if step == "..":
                at = os.path.dirname(at)
                status = os.lstat(at)
                continue
            here = os.path.join(at, step)
            found = os.lstat(here)
            if not stat.S_ISLNK(found.st_mode):
                at, status = here, found
                yield at, status
                continue
            if status.st_mode & stat.S_ISVTX:
                yield here, found
            links += 1
            if links > _MOST_LINKS:
                return
            target = os.readlink(here)
            if target.startswith("/"):
                at, status = "/", os.lstat("/")
            rest += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    except OSError:
        return  # the process that opens the file reports a missing or inaccessible step


def group_name(gid: int) -> str:
    """The name of a group, or its number if it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _fault(path: str, status: os.stat_result, trusted: Trust) -> str:
    """The reason why a step is not safe, or ""."""
    if status.st_uid not in trusted.users and not trusted.everybody:
        return f"{path} belongs to user {user_name(status.st_uid)}"
    mode = status.st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        return ""  # writing to a device or socket does not change it, and a link has no mode
    if mode & stat.S_IWOTH and not trusted.everybody:
        return f"{path} can be written by every user: chmod o-w"
    if mode & stat.S_IWGRP and not trusted.everybody and not _is_of_trusted(path, status.st_gid, trusted):
        return f"{path} can be written by group {group_name(status.st_gid)}: chmod g-w"
    return ""


def _is_of_trusted(path: str, gid: int, trusted: Trust) -> bool:
    """Does a group have only trusted members? True for a user's own group, on systems with umask 002.

    For root only groups in `trusted` count: a service may run under a group without members. With an access control
    list the group bits are its mask, and other users may have write permission.
    """
    try:
        os.getxattr(path, _ACL)
    except OSError:
        pass
    else:
        return False
    if gid in trusted.groups:
        return True
    if os.geteuid() == 0:
        return False
    try:
        names = grp.getgrgid(gid).gr_mem
    except KeyError:
        names = []
    return {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid or user.pw_name in names} <= trusted.users
