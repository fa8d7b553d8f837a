"""Rights of files that a process trusts, judged as by sshd's StrictModes: of a path, and of all that leads to it.

A file is as safe as its directories, up to the root: whoever may write one of them can put another file there. A sticky
directory is safe as far as what stands in it belongs to somebody trusted. Symbolic links are followed one by one, as the
system does, and what they lead to is judged as well.

Trusted are root, whoever this process is, and whoever may change the program itself, which can do all that a file could
have it do: so a checkout of somebody's own can be run by root.
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
"""As many as Linux follows."""
_ACL: Final = "system.posix_acl_access"


@frozen
class Trust:
    """Users and groups that may write what a process trusts."""

    users: frozenset[int]
    groups: frozenset[int] = frozenset()
    everybody: bool = False

    def with_user(self, uid: int) -> Trust:
        """One user more."""
        return evolve(self, users=self.users | {uid})


def trust() -> Trust:
    """Root, this process's user, and whoever may change this program."""
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
    """Who else than those trusted could change what a path leads to, in words; "" if nobody. Raises nothing.

    Of a path that is not there only the directories count that are.
    """
    return next((fault for step, status in _steps(path) if (fault := _fault(step, status, trusted))), "")


def program_fault() -> str:
    """Who else than root and this process's user could change the program, in words; or ""."""
    bare = Trust(frozenset({0, os.geteuid()}), frozenset({0}))
    return unsafe(Path(__file__), bare) or unsafe(Path(sys.executable), bare)


def user_name(uid: int) -> str:
    """Of a user; its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _steps(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All that decides what a path leads to, from the root on: directories, links in sticky ones, and the last itself."""
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
        return  # what is not there, or cannot be looked at, is found wrong by whoever opens it


def group_name(gid: int) -> str:
    """Of a group; its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _fault(path: str, status: os.stat_result, trusted: Trust) -> str:
    """Why a step is not safe, or ""."""
    if status.st_uid not in trusted.users and not trusted.everybody:
        return f"{path} belongs to user {user_name(status.st_uid)}"
    mode = status.st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        return ""  # to write to a device or a socket is not to change it, and a link has no mode
    if mode & stat.S_IWOTH and not trusted.everybody:
        return f"{path} can be written by every user: chmod o-w"
    if mode & stat.S_IWGRP and not trusted.everybody and not _is_of_trusted(path, status.st_gid, trusted):
        return f"{path} can be written by group {group_name(status.st_gid)}: chmod g-w"
    return ""


def _is_of_trusted(path: str, gid: int, trusted: Trust) -> bool:
    """Has a group none but trusted users? A user's own group, of systems whose umask is 002, has not.

    For root only groups that are named as trusted count: a service may run under a group of which no user is a member.
    An access control list may let others write: its mask is what the mode shows for the group.
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
