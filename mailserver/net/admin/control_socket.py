"""The control socket: a connection sends one JSON object, a line, and gets one back. Only the configured user can open it.

`{"do": "reload"}` -> `{"ok": true, "lines": [...]}`. A command may take arguments beside "do", and may answer with "data"
as well as lines for a person. A request that is malformed or too long is refused.

A worker that was taken over runs as the configured user, and this process may be root. So the number of connections, the
length of a request and the time for it and its answer are limited as for any client.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from mailserver.net.ipc.message_schema import BadMessage, Json, parse
from mailserver.net.log.events import log

Answer = tuple[bool, list[str]]
"""Whether everything was done, and lines for a person."""
Arguments: TypeAlias = Mapping[str, Any]


@frozen
class DataAnswer:
    """An answer with data."""

    data: Json
    ok: bool = True
    lines: tuple[str, ...] = ()


MOST: Final = 16
"""Connections at once; beyond them one without a whole request is closed."""
REQUEST_TIME: Final = 30.0
"""Seconds for a request to arrive, and then for its answer to be read."""

Command = Callable[[Arguments], Deferred[Answer] | Deferred[DataAnswer]]
_CREDENTIALS = struct.Struct("3i")


class BadRequest(Exception):
    """A command does not take these arguments; the text says what it takes."""


class ControlProtocol(LineOnlyReceiver, TimeoutMixin):
    """One connection of the administrator's command."""

    delimiter = b"\n"
    MAX_LENGTH = 4 << 20
    """Octets; a certificate's chain and its key may have a MiB each."""

    def __init__(self, factory: ControlFactory) -> None:
        self._commands = factory.commands
        self._guarded = factory.guarded
        self._open = factory.open
        self._asked = False
        self._clock = factory.clock

    def connectionMade(self) -> None:
        """Start the time limit; close another connection if there are too many."""
        self._open[self] = None
        self.setTimeout(REQUEST_TIME)
        if len(self._open) > MOST:
            next((each for each in self._open if not each._asked), self).timeoutConnection()  # noqa: SLF001

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Forget the connection."""
        self.setTimeout(None)
        self._open.pop(self, None)

    def callLater(self, period: float, func: Callable[[], None]) -> IDelayedCall:
        """Use the factory's clock, for TimeoutMixin."""
        return self._clock.callLater(period, func)

    def timeoutConnection(self) -> None:
        """Cut the connection."""
        cast("Any", self.transport).abortConnection()

    def lineReceived(self, line: bytes) -> None:
        """Handle a request."""
        if self._asked:
            return
        self._asked = True
        self.setTimeout(None)
        try:
            request: Any = parse(line)
            name = request.pop("do")
            command = self._commands[name]
            # Half of a surrogate pair is no character: it can be neither stored nor logged.
            json.dumps(request, ensure_ascii=False).encode()
        except (BadMessage, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._answer((False, [f"unknown request; known: {', '.join(sorted(self._commands))}"]))
            return
        if name in self._guarded and self._peer not in {0, os.geteuid()}:
            self._answer((False, [f"{name} changes what the server serves: only root, or its user, may ask for it"]))
            return

        def fail(failure: Failure) -> Answer:
            if failure.check(BadRequest):
                return False, [failure.getErrorMessage()]
            log.failure("the control command {command} has failed", failure, event="bug", command=name)
            return False, ["internal error, see the log"]

        doing: Deferred[Any] = maybeDeferred(command, request)
        doing.addErrback(fail).addCallback(self._answer)

    @property
    def _peer(self) -> int:
        """User number of the client (SO_PEERCRED)."""
        opened: socket.socket = cast("Any", self.transport).getHandle()
        _pid, uid, _gid = _CREDENTIALS.unpack(
            opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return int(uid)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002
        """Refuse a request that is too long."""
        if not self._asked:
            self._asked = True
            self._answer((False, [f"a request may have {self.MAX_LENGTH} octets"]))

    def _answer(self, answer: Answer | DataAnswer) -> None:
        if isinstance(answer, DataAnswer):
            body = {"ok": answer.ok, "lines": list(answer.lines), "data": answer.data}
        else:
            body = {"ok": answer[0], "lines": answer[1]}
        if self.connected:
            self.sendLine(json.dumps(body).encode())
            self.setTimeout(REQUEST_TIME)
            cast("Any", self.transport).loseConnection()


class ControlFactory(ServerFactory):
    """Serves commands; guarded ones only to root and to the user of this process."""

    noisy = False

    def __init__(
        self, commands: Mapping[str, Command], guarded: frozenset[str] = frozenset(), *, clock: IReactorTime
    ) -> None:
        self.commands = commands
        self.guarded = guarded
        self.clock = clock
        self.open: dict[ControlProtocol, None] = {}
        """Open connections, the oldest first."""

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:  # noqa: ARG002
        """Make the protocol of a connection."""
        return ControlProtocol(self)


def socket_path(runtime_dir: Path) -> Path:
    """Return the path of the control socket."""
    return runtime_dir / "control"


def make_runtime_dir(path: Path) -> None:
    """Make the directory of the control socket, for its owner alone. Raises: OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
