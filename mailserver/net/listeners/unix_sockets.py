"""Unix sockets in the file system, without races over their names.

The directory may belong to the service's user, and the process that makes the socket may be root. Between bind(2) and a
chmod or chown by name, an attacker who has become that user could put a link to another file in the socket's place. So both are
applied to a descriptor that is opened without following links, and that is a socket with this one name.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from mailserver.net.ipc.received_fds import close_descriptors, close_socket
from mailserver.net.transport.direct import READ_SIZE, DirectTransport
from mailserver.net.transport.direct_port import DirectPort

BACKLOG = 1024
_ROOM_FOR_DESCRIPTORS = socket.CMSG_SPACE(253 * array.array("i").itemsize)
"""SCM_MAX_FD: as many as one message can pass (unix(7))."""


def bind_unix(path: Path, mode: int, owner: tuple[int, int] | None = None) -> socket.socket:
    """Open a listening socket in place of a stale one. It takes no client before it has its mode and owner (uid, gid).

    Raises: OSError.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        remove_stale(path)
        opened.bind(str(path))
        set_rights(path, mode, owner)
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def remove_stale(path: Path) -> None:
    """Remove the socket file of a dead process. Raises: OSError, EADDRINUSE if a process listens there."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is an answer, too
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))


class UnixTransport(DirectTransport):
    """The server's side of a connection. A client that passes descriptors is cut: no protocol here takes any."""

    def doRead(self) -> Any:
        """As the parent."""
        try:
            data, ancillary, _flags, _address = self.socket.recvmsg(
                READ_SIZE, _ROOM_FOR_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST
        passed = array.array("i")
        for level, kind, octets in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                passed.frombytes(octets[: len(octets) - len(octets) % passed.itemsize])
        if passed:
            close_descriptors(passed)
            self.abortConnection()
            return None
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def close_socket(self) -> None:
        """As no client's descriptor may hold up the reactor."""
        close_socket(self.socket)


def serve_unix(opened: socket.socket, factory: Any, reactor: Any) -> DirectPort:
    """Accept connections; the socket is the port's from now on, its file is not."""
    port = DirectPort(opened, factory, reactor, UnixTransport)
    port.startListening()
    return port


def set_rights(path: Path, mode: int, owner: tuple[int, int] | None) -> None:
    """Give a socket's file its mode and owner. Raises: OSError."""
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(found)
        if not stat.S_ISSOCK(status.st_mode) or status.st_nlink != 1:
            raise OSError(errno.EINVAL, "something else was put in place of the socket", str(path))
        same = f"/proc/self/fd/{found}"
        os.chmod(same, mode)
        if owner is not None:
            os.chown(same, *owner)
    finally:
        os.close(found)
