"""The client of the control socket: one JSON line to the running server, and one back.

A request may contain a private key, and the answer is trusted. So the client verifies the server before it sends anything.
No other user may be able to replace the directory of the socket (`strict_modes`), and the process at the socket
(SO_PEERCRED) must belong to root, to the caller, or to the configured user if the directory belongs to that user. A root
master has a directory of its own, so that no process of the service's user can impersonate it.
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
"""Largest answer, octets: more than a hundred thousand sessions."""
_ENDED = (
    "the server ended before it answered, so it is not known whether the request was executed:"
    " see its log, and start it again if `mailserver status` does not find it"
)


_CREDENTIALS = struct.Struct("3i")


class NotRunning(Exception):
    """No server listens on the socket."""


class NotTrusted(PermissionError):
    """The socket belongs, or may belong, to another user: nothing was sent."""


@frozen
class Answer:
    """The server's answer to a request."""

    ok: bool
    lines: tuple[str, ...]
    data: Any = None


def ask(config: Config, request: str, **arguments: str) -> Answer:
    """Send the request `{"do": request}`, with its arguments, to the server of a configuration, and wait for its answer.

    Raises: NotRunning; NotTrusted; OSError (no permission for the socket, no answer within a minute, a server that ends
    meanwhile); ValueError for an answer other than `{"ok": bool, "lines": [str, ...]}`, with or without "data".
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
    """The user ids that the server at the socket may have. Raises: NotTrusted, if another user could replace the socket."""
    directory = config.server.runtime_dir
    trusted = trust()
    allowed = {0, os.geteuid()}
    with contextlib.suppress(OSError):  # connect() reports it better
        owner = os.stat(directory).st_uid
        if owner == service_identity(config).uid:
            allowed.add(owner)
            trusted = trusted.with_user(owner)
    fault = unsafe(directory, trusted)
    if fault:
        raise NotTrusted(
            f"nothing was sent to {directory / SOCKET_NAME}: another user could impersonate the server there: {fault}"
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
            " who has started it"
        )


def server_config(configuration: Path) -> Config:
    """The configuration of the server to ask. Raises: click.ClickException, with the problems of the file.

    A running server can be asked even if its file has become invalid since the start, outside of [server].
    """
    reading = load.read(configuration)
    if reading.config is None or any(place.startswith("[server]") for place in reading.broken):
        return load_or_fail(configuration)
    return reading.config


def ask_or_fail(configuration: Path, request: str, **arguments: str) -> Answer:
    """Ask the server of that configuration. Raises: click.ClickException."""
    try:
        return ask_if_running(configuration, request, **arguments)
    except NotRunning as error:
        load_or_fail(configuration)
        raise click.ClickException(str(error)) from error


def ask_if_running(configuration: Path, request: str, **arguments: str) -> Answer:
    """As `ask_or_fail`. Raises: NotRunning."""
    try:
        answer = ask(server_config(configuration), request, **arguments)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if request != "reload" and load.load(configuration)[0] is None:
        click.echo(
            "warning: the configuration has errors, see `mailserver check`; the server keeps its running configuration",
            err=True,
        )
    return answer


def reload_server(config: Config, done: str, later: str) -> None:
    """Reload a running server after a change. `done`: the change. `later`: the note if none runs. Raises: ClickException."""
    try:
        answer = ask(config, "reload")
    except NotRunning:
        click.echo(f"no server is running; {later}")
        return
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{done}, but the server could not reload: {error}") from error
    _finish(answer)


def _finish(answer: Answer) -> None:
    for line in answer.lines:
        click.echo(line)
    if not answer.ok:
        raise SystemExit(1)


@click.command("reload")
@config_option
def reload(configuration: Path) -> None:
    """Reload the configuration and certificates of the running server."""
    _finish(ask_or_fail(configuration, "reload"))
