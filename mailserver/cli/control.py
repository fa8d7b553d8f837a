"""Talking to the running server over its control socket: one JSON line each way.

A request may hold a private key, and the answer is believed. So nothing is sent before it is known who answers: the
directory must be one that nobody else could have put there (`strict_modes`), and the process at the socket (SO_PEERCRED)
must be root's, the caller's own, or the configured user's where the directory is that user's. A master that is root has a
directory of its own, so that whoever has become the service's user cannot stand in for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from mailserver.cli.columns import plain
from mailserver.cli.options import config_option, load_or_fail
from mailserver.config import load
from mailserver.config.directories import service_identity
from mailserver.config.model import Config
from mailserver.config.strict_modes import trust, unsafe, user_name

SOCKET_NAME = "control"
"""Name of the socket in the configuration's runtime_dir."""
_TIMEOUT = 60.0
_MAX_ANSWER = 64 * 1024 * 1024
"""Octets; a hundred thousand sessions are less."""
_ENDED = (
    "the server ended before it had answered, so it is not known whether it has done what was asked:"
    " see its log, and start it again if `mailserver status` does not find it"
)


_CREDENTIALS = struct.Struct("3i")


class NotRunning(Exception):
    """No server listens on the socket."""


class NotTrusted(PermissionError):
    """The socket is, or may be, somebody else's: nothing was sent."""


@frozen
class Answer:
    """What the server says to a request."""

    ok: bool
    lines: tuple[str, ...]
    data: Any = None


def ask(config: Config, request: str, **arguments: str) -> Answer:
    """Have the server of a configuration do `request`, `{"do": request}` with the arguments beside it, and wait for its answer.

    Raises: NotRunning; NotTrusted; OSError (no right to the socket, no answer within a minute, a server that ends
    meanwhile); ValueError for an answer that is not `{"ok": bool, "lines": [str, ...]}`, with "data" or without.
    """
    path = config.server.runtime_dir / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        allowed = _possible_servers(config)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"no server is running here: nothing listens on {path}") from error
        except PermissionError as error:
            raise PermissionError(f"only the service's user and root may ask the server at {path}") from error
        _check_peer(connection, allowed, path)
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


def _possible_servers(config: Config) -> frozenset[int]:
    """The user numbers that the server behind the socket may have. Raises: NotTrusted, for a directory of somebody else's."""
    directory = config.server.runtime_dir
    trusted = trust()
    allowed = {0, os.geteuid()}
    with contextlib.suppress(OSError):  # connect() has better words for it
        owner = os.stat(directory).st_uid
        if owner == service_identity(config).uid:
            allowed.add(owner)
            trusted = trusted.with_user(owner)
    fault = unsafe(directory, trusted)
    if fault:
        raise NotTrusted(
            f"nothing was sent to {directory / SOCKET_NAME}: another user could stand in for the server there: {fault}"
        )
    return frozenset(allowed)


def _check_peer(connection: socket.socket, allowed: frozenset[int], path: Path) -> None:
    """Raises: NotTrusted."""
    _pid, uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if uid not in allowed:
        expected = ", ".join(sorted(map(user_name, allowed)))
        raise NotTrusted(
            f"nothing was sent to {path}: the process that listens there runs as user {user_name(uid)}, and the server"
            f" would run as {expected}; if this is the server, run the command as user {user_name(uid)}, else find out"
            " who has put it there"
        )


def asked_config(configuration: Path) -> Config:
    """The configuration whose server is asked; or what is wrong with the file as the command's error.

    A server that runs can be asked also when its file has been spoilt since, elsewhere than in [server].
    """
    reading = load.read(configuration)
    if reading.config is None or any(place.startswith("[server]") for place in reading.broken):
        return load_or_fail(configuration)
    return reading.config


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
        answer = ask(asked_config(configuration), request, **arguments)
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
        answer = ask(config, "reload")
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
