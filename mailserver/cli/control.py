"""Talking to the running server over its control socket: one JSON line each way."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from mailserver.cli.columns import plain
from mailserver.cli.options import config_option, load_or_fail
from mailserver.config import load
from mailserver.config.model import Config

SOCKET_NAME = "control"
"""Name of the socket in the configuration's runtime_dir."""
_TIMEOUT = 60.0
_MAX_ANSWER = 64 * 1024 * 1024
"""Octets; a hundred thousand sessions are less."""
_ENDED = (
    "the server ended before it had answered, so it is not known whether it has done what was asked:"
    " see its log, and start it again if `mailserver status` does not find it"
)


class NotRunning(Exception):
    """No server listens on the socket."""


@frozen
class Answer:
    """What the server says to a request."""

    ok: bool
    lines: tuple[str, ...]
    data: Any = None


def ask(runtime_dir: Path, request: str, **arguments: str) -> Answer:
    """Have the server do `request`, `{"do": request}` with the arguments beside it, and wait for its answer.

    Raises: NotRunning; OSError (no right to the socket, no answer within a minute, a server that ends meanwhile); ValueError for an answer that is
    not `{"ok": bool, "lines": [str, ...]}`, with "data" or without.
    """
    path = runtime_dir / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"no server is running here: nothing listens on {path}") from error
        except PermissionError as error:
            raise PermissionError(f"only the service's user and root may ask the server at {path}") from error
        received = bytearray()
        try:
            connection.sendall(json.dumps({**arguments, "do": request}).encode("ascii") + b"\n")
            while not received.endswith(b"\n"):
                piece = connection.recv(65536)
                received += piece
                if not piece:
                    raise ConnectionAbortedError(_ENDED)
                if len(received) > _MAX_ANSWER:
                    raise ValueError("the server's answer is not one line")
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConnectionAbortedError(_ENDED) from error
    match json.loads(received):
        case {"ok": bool(ok), "lines": list(lines), **more}:
            return Answer(ok, tuple(plain(str(line)) for line in lines), more.get("data"))
    raise ValueError("the server's answer has no `ok` and `lines`")


def runtime_dir(configuration: Path) -> Path:
    """Where the server of that configuration is asked; or what is wrong with the file as the command's error.

    A server that runs can be asked also when its file has been spoilt since, elsewhere than in [server].
    """
    reading = load.read(configuration)
    if reading.config is None or any(place.startswith("[server]") for place in reading.broken):
        return load_or_fail(configuration).server.runtime_dir
    return reading.config.server.runtime_dir


def ask_or_fail(configuration: Path, request: str, **arguments: str) -> Answer:
    """The answer of the server of that configuration, or the command's error."""
    try:
        return ask_if_running(configuration, request, **arguments)
    except NotRunning as error:
        load_or_fail(configuration)
        raise click.ClickException(str(error)) from error


def ask_if_running(configuration: Path, request: str, **arguments: str) -> Answer:
    """As `ask_or_fail`. Raises: NotRunning."""
    try:
        answer = ask(runtime_dir(configuration), request, **arguments)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if request != "reload" and load.load(configuration)[0] is None:
        click.echo(
            "warning: the configuration has errors, which `mailserver check` names; the server runs on", err=True
        )
    return answer


def take_up(config: Config, done: str, later: str) -> None:
    """Have a running server take up what a command has `done`; `later` is said where none runs. Raises: ClickException."""
    try:
        answer = ask(config.server.runtime_dir, "reload")
    except NotRunning:
        click.echo(f"no server is running; {later}")
        return
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{done}, but the server could not be told: {error}") from error
    _finish(answer)


def _finish(answer: Answer) -> None:
    for line in answer.lines:
        click.echo(line)
    if not answer.ok:
        raise SystemExit(1)


@click.command("reload")
@config_option
def reload(configuration: Path) -> None:
    """Have the running server take up changed configuration and certificates."""
    _finish(ask_or_fail(configuration, "reload"))
