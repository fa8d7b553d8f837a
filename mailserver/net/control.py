"""The control socket: one JSON object a line, one JSON object back. Only the service's user can open it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineOnlyReceiver

from mailserver.net.log import log

Answer = tuple[bool, list[str]]


class ControlProtocol(LineOnlyReceiver):
    """`{"do": "reload"}` -> `{"ok": true, "lines": [...]}`."""

    delimiter = b"\n"
    MAX_LENGTH = 65536

    def __init__(self, commands: Mapping[str, Callable[[], Answer]]) -> None:
        self._commands = commands

    def lineReceived(self, line: bytes) -> None:
        """One request."""
        try:
            request = json.loads(line)
            command = self._commands[request["do"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            ok, lines = False, [f"unknown request; known: {', '.join(sorted(self._commands))}"]
        else:
            try:
                ok, lines = command()
            except Exception:
                log.failure("control request {do}", do=request["do"])
                ok, lines = False, ["internal error, see the log"]
        self.sendLine(json.dumps({"ok": ok, "lines": lines}).encode())


class ControlFactory(ServerFactory):
    """Serves the given commands."""

    noisy = False

    def __init__(self, commands: Mapping[str, Callable[[], Answer]]) -> None:
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
