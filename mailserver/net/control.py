"""The control socket: one JSON object a line, one JSON object back. Only the service's user can open it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mailserver.net.log import log

Answer = tuple[bool, list[str]]
Command = Callable[[], Deferred[Answer]]


class ControlProtocol(LineOnlyReceiver):
    """`{"do": "reload"}` -> `{"ok": true, "lines": [...]}`."""

    delimiter = b"\n"
    MAX_LENGTH = 65536

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands

    def lineReceived(self, line: bytes) -> None:
        """One request."""
        try:
            request = json.loads(line)
            command = self._commands[request["do"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            self._answer((False, [f"unknown request; known: {', '.join(sorted(self._commands))}"]))
            return

        def fail(failure: Failure) -> Answer:
            log.failure("control request {do}", failure, do=request["do"])
            return False, ["internal error, see the log"]

        command().addErrback(fail).addCallback(self._answer)

    def _answer(self, answer: Answer) -> None:
        ok, lines = answer
        if self.connected:
            self.sendLine(json.dumps({"ok": ok, "lines": lines}).encode())


class ControlFactory(ServerFactory):
    """Serves the given commands."""

    noisy = False

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:  # noqa: ARG002
        """One for each request connection."""
        return ControlProtocol(self._commands)


def socket_path(runtime_dir: Path) -> Path:
    """Where the control socket stands."""
    return runtime_dir / "control"


def make_runtime_dir(path: Path) -> None:
    """The directory of the control socket, for its owner only where we make it. Raises: OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
