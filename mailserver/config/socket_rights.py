"""Access to the Unix sockets of listeners: mode, owner and group of the files, and a description of who can connect.

Connecting requires write permission on the socket's file, and passage through its directories. A program that can
connect by LMTP can deliver mail from any sender; one that can connect to `auth` can guess passwords in the name of any address; one that can connect to `lookup` can ask for any address.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from typing import Final

from attrs import frozen

from mailserver.config.directories import service_identity
from mailserver.config.model import Config, Listener, Problem, Server
from mailserver.config.strict_modes import group_name, user_name

_OPEN_TO_ALL: Final = {
    "lmtp": "deliver mail from any sender",
    "auth": "guess passwords in the name of any address, and so delay or ban it",
    "lookup": "learn which addresses exist here, and who gets their mail",
}
"""By protocol: what a program can do that can connect."""


@frozen
class SocketRights:
    """Mode, owner and group of a Unix socket's file."""

    mode: int
    uid: int
    gid: int

    def __str__(self) -> str:
        """Describe who can connect."""
        if self.mode & 0o002:
            return "every user of this machine can connect"
        who = [f"user {user_name(self.uid)}"] if self.mode & 0o200 and self.uid else []
        who += [f"group {group_name(self.gid)}"] if self.mode & 0o020 else []
        return " and ".join(["root", *who]) + " can connect"

    @classmethod
    def of_listener(cls, listener: Listener, server: Server) -> SocketRights:
        """The rights that the configuration sets. Raises: KeyError for an unknown user or group."""
        owner = pwd.getpwnam(server.user) if server.user else None
        uid = pwd.getpwnam(listener.socket_owner).pw_uid if listener.socket_owner else None
        gid = grp.getgrnam(listener.socket_group).gr_gid if listener.socket_group else None
        if uid is None:
            uid = owner.pw_uid if owner is not None else os.geteuid()
        if gid is None:
            own = owner.pw_gid if owner is not None else os.getegid()
            gid = grp.getgrnam(server.group).gr_gid if server.group else own
        return cls(int(listener.socket_mode, 8), uid, gid)


def check_sockets(config: Config) -> list[Problem]:
    """Find rights that cannot be set, or that admit everybody or nobody. Raises nothing."""
    found: list[Problem] = []
    for listener in config.listeners:
        if listener.socket is not None:
            found += _of_listener(config, listener)
    return found


def socket_lines(config: Config) -> list[str]:
    """Describe who can connect to each Unix socket, a line for each."""
    lines = []
    for listener in config.listeners:
        if listener.socket is not None:
            rights = SocketRights.of_listener(listener, config.server)
            lines.append(f"{listener.protocol} on {listener.socket}: {rights} (mode {listener.socket_mode})")
    return lines


def _of_listener(config: Config, listener: Listener) -> Iterator[Problem]:
    try:
        rights = SocketRights.of_listener(listener, config.server)
    except KeyError:
        return  # check_listeners reports it
    place = listener.place
    if os.geteuid() != 0:
        if rights.uid != os.geteuid():
            reason = "only root can set the owner of the socket: remove socket_owner, or start the server as root"
            yield config.problem(f"{place} socket_owner", f'"{listener.socket_owner}"', reason)
        if rights.gid not in {os.getegid(), *os.getgroups()}:
            reason = (
                "the user that starts the server is not a member of this group: only root can give the socket to it"
            )
            yield config.problem(f"{place} socket_group", f'"{listener.socket_group}"', reason)
    if listener.protocol not in _OPEN_TO_ALL:
        return
    value = f'"{listener.socket_mode}"'
    if rights.mode & 0o002:
        reason = (
            f"lets every user of this machine {_OPEN_TO_ALL[listener.protocol]}: give the socket to the group of the transfer"
            ' agent, socket_group = "postfix" say, with mode "0660"'
        )
        yield config.problem(f"{place} socket_mode", value, reason, warning=True)
    elif _is_alone(rights, service_identity(config).uid):
        reason = (
            f"lets only root and user {user_name(rights.uid)} connect: a transfer agent with another user is"
            ' refused; socket_group = "postfix" lets Postfix in'
        )
        yield config.problem(f"{place} socket_mode", value, reason, warning=True)


def _is_alone(rights: SocketRights, service: int) -> bool:
    """Can only root and the service's (other) user connect?"""
    if not service or rights.uid not in (0, service):
        return False
    if not rights.mode & 0o020:
        return True
    try:
        names = grp.getgrgid(rights.gid).gr_mem
    except KeyError:
        names = []
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == rights.gid or user.pw_name in names}
    return members <= {0, service}
