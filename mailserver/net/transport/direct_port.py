"""A listening port whose connections are direct transports (`direct.py`), on the reactor's public interfaces alone.

Problem: Twisted's port buffers the log while it accepts, composes two names for each transport, and accepts an unbounded
number of clients at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReadWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.net.log.events import log
from mailserver.net.transport.address import twisted_address
from mailserver.net.transport.direct import DirectTransport

AT_ONCE: Final = 8
"""Clients that a port accepts in one turn of the reactor. A closed connection is noticed after them, or in the next turn, and
counts until then. So an address that reconnects again and again may count twice as many as these beside its open connections,
and must not reach its limit by that."""
PAUSE: Final = 0.1
"""Seconds without accepting when no descriptor is left, not even the reserved one."""
LOG_INTERVAL: Final = 60.0
"""Seconds between two log lines of a port about clients that are turned away."""
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_FAILED_BEFORE: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
        errno.ETIMEDOUT,
    }
)
"""The connection failed before it was accepted (accept(2)); the next one may succeed, and the port must stay."""

MakeTransport = Callable[[socket, Any, IAddress, Any], DirectTransport]


@implementer(IListeningPort, IReadWriteDescriptor)
class DirectPort:
    """A listening port. At the end it only closes its socket, which other processes may have, too."""

    def __init__(
        self, listening: socket, factory: Any, reactor: Any, make_transport: MakeTransport = DirectTransport
    ) -> None:
        """`listening` belongs to this port from now on."""
        listening.setblocking(False)
        self.socket = listening
        self.factory = factory
        self.sessionno = 0
        """The number of clients that were accepted, named as in Twisted's port."""
        self.reactor = reactor
        self._family = listening.family
        self._make_transport = make_transport
        self._reserved = -1
        self._logged_at: float | None = None
        self._unsaid = 0
        """Clients that were turned away since the last log line about them."""

    def startListening(self) -> None:
        """See IListeningPort."""
        self._reserve()
        self.factory.doStart()
        self.reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """See IListeningPort."""
        if self.fileno() != -1:
            self.reactor.removeReader(self)
            self.socket.close()
            self._release()
            self.factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """See IListeningPort."""
        return twisted_address(self._family, self.socket.getsockname())

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "a listening port"

    def doRead(self) -> None:
        """Accept waiting clients, AT_ONCE at most.

        With one in each turn, a client that connects under load would wait for a whole turn for each client before it.
        """
        for _ in range(AT_ONCE):
            try:
                accepted, client = self.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._turn_away(error)
                    return
                if error.errno not in _FAILED_BEFORE:
                    raise
                continue
            self._serve(accepted, twisted_address(self._family, client))
            if self.fileno() == -1:
                return  # the factory has stopped this port

    def doWrite(self) -> None:
        """Never called: nothing is written to a port."""

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """The reactor stops, or `doRead` has failed."""
        self.stopListening()

    def _serve(self, accepted: socket, client: IAddress) -> None:
        try:
            protocol = self.factory.buildProtocol(client)
            if protocol is None:
                accepted.close()
                return
            transport = self._make_transport(accepted, protocol, client, self.reactor)
        except Exception:
            log.failure("a client that has connected is not served", event="bug")
            accepted.close()
            return
        self.sessionno += 1
        try:
            protocol.makeConnection(transport)
        except Exception:
            log.failure("a client that has connected is served no more", event="bug")
            transport.abortConnection()

    def _reserve(self) -> None:
        self._reserved = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _release(self) -> None:
        if self._reserved != -1:
            os.close(self._reserved)
            self._reserved = -1

    def _turn_away(self, error: OSError) -> None:
        """Accept one client and close it, with the descriptor reserved for this: a client that waits would keep the reactor busy."""
        self._log_turned_away(error)
        self._release()
        try:
            self.socket.accept()[0].close()
            self._reserve()
        except OSError:
            # Another thread has taken the descriptor. Without the reserve, only a pause keeps the reactor from spinning.
            self.reactor.removeReader(self)
            self.reactor.callLater(PAUSE, self._resume)

    def _log_turned_away(self, error: OSError) -> None:
        now = self.reactor.seconds()
        if self._logged_at is not None and now - self._logged_at < LOG_INTERVAL:
            self._unsaid += 1
            return
        unsaid, self._unsaid, self._logged_at = self._unsaid, 0, now
        log.warn("a client is turned away: {reason}", event="client-turned-away", reason=error.strerror, unsaid=unsaid)

    def _resume(self) -> None:
        if self.fileno() != -1:
            if self._reserved == -1:
                with suppress(OSError):
                    self._reserve()
            self.reactor.addReader(self)
