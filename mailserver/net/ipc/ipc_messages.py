"""What the master tells the zygote and the workers, as it travels (pickled, `frames`)."""

from __future__ import annotations

import socket
from typing import Any

from attrs import define, field, frozen

from mailserver.config.model import Config
from mailserver.net.log.process_log import ProcessLog
from mailserver.types import DirectoryId


@frozen
class ServedConfig:
    """What new workers begin with."""

    config: Config
    material: Any = field(repr=False)
    """`tls.serving.material.Material`."""


@frozen
class ZygoteInit:
    """The first frame to a zygote."""

    setting: ServedConfig
    shards: int
    penalty_key: bytes = field(repr=False)
    relayed: bool
    """The master writes the log lines that come out of standard output."""
    mail_root: DirectoryId | None
    """The directory of all mail when the server started: a worker may be forked while its file system is gone."""
    known_key: bytes = field(repr=False)
    """Of the digests of known networks (`auth.throttling.known_networks`)."""


@frozen
class ForkRequest:
    """Make a worker; its line to the master comes beside it."""

    number: int
    """Of this order, by which the zygote tells what came of it."""
    shard: int
    worker: int
    living: tuple[int, ...]
    """Numbers of the others."""


@frozen
class ListenerSockets:
    """Listening sockets, in the order of `places`, come beside it; shard -1 is a socket which all share."""

    places: tuple[tuple[str, int], ...]


@frozen
class PokeSockets:
    """Two sockets for each worker come beside it: where its worker receives pokes, and where others send them."""

    workers: tuple[int, ...]


@define
class WorkerInit:
    """All that a new worker has, just after the fork."""

    setting: ServedConfig
    shards: int
    shard: int
    worker: int
    living: tuple[int, ...]
    penalty_key: bytes = field(repr=False)
    tls: Any
    """`tls.serving.policy.TlsPolicy`, made before the fork."""
    lines: ProcessLog
    """The log's observer."""
    line: socket.socket
    """To the master."""
    listening: dict[str, socket.socket]
    """By place."""
    mail_root: DirectoryId | None
    """As `ZygoteInit` says."""
    known_key: bytes = field(repr=False)
    poke_receive: socket.socket
    poke_send: dict[int, socket.socket]
