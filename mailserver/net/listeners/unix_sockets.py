"""Unix sockets in the file system: made, given away and served without following what a name leads to by then.

The directory may be the service's user's, and who makes the socket may be root: between the making and a chmod or chown
by name, whoever has become that user could put a link to another file in its place. So both are done to what is opened
without following links, and found to be a socket that has this one name.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

from twisted.internet import unix

from mailserver.net.ipc.received_fds import close_line, close_passed

BACKLOG = 1024


def bind_unix(path: Path, mode: int, owner: tuple[int, int] | None = None) -> socket.socket:
    """A listening socket in place of a stale one; nobody connects before it has its mode and owner (uid, gid).

    Raises: OSError.
    """
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        remove_stale(path)
        opened.bind(str(path))
        settle(path, mode, owner)
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def remove_stale(path: Path) -> None:
    """Remove a socket file that nobody answers: a dead process's. Raises: OSError, EADDRINUSE if somebody does."""
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


class UnixServer(unix.Server):
    """The server's side of a connection. A client that passes descriptors is cut: nobody here wants any."""

    def _ancillaryLevelSOLSOCKETTypeSCMRIGHTS(self, data: bytes) -> None:
        passed = array.array("i")
        passed.frombytes(data[: len(data) - len(data) % passed.itemsize])
        close_passed(passed)
        self.abortConnection()

    def _closeSocket(self, orderly: bool) -> None:  # noqa: ARG002 - a Unix socket has no other way
        close_line(self.socket)


class UnixPort(unix.Port):
    """Serves a bound socket, whose file, and the socket itself where other processes serve it too, is not this one's to end."""

    _shouldShutdown = False
    transport = UnixServer

    def __init__(self, path: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(path, *arguments, **named)
        # Twisted changes the mode of a path at the start and removes it at the end; an abstract name it leaves alone.
        self._bindPath = b"\0" + os.fsencode(path)


def serve(opened: socket.socket, factory: Any, reactor: Any) -> UnixPort:
    """Take connections; the reactor has a duplicate of the socket."""
    port: UnixPort = UnixPort._fromListeningDescriptor(reactor, opened.fileno(), factory)  # noqa: SLF001 - as adoptStreamPort does
    port.startListening()
    return port


def settle(path: Path, mode: int, owner: tuple[int, int] | None) -> None:
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
