"""Messages from the master to the zygote and the workers; they are pickled, as both trust the master.

The zygote makes a WorkerInit of what it has and of a ForkRequest; that one is never sent.
"""

from __future__ import annotations

import socket
from mmap import mmap
from typing import Any

from attrs import define, field, frozen

from mailserver.config.model import Config
from mailserver.net.ipc.message_schema import Json
from mailserver.net.log.process_log import ProcessLog
from mailserver.types import DirectoryId

# --- To the zygote


@frozen
class ServedConfig:
    """The configuration and the certificates that workers serve."""

    config: Config
    material: Any = field(repr=False)
    """`tls.serving.material.Material`."""


@frozen
class ZygoteInit:
    """Everything that the zygote needs before it can fork, but the sockets, which are sent before it."""

    served: ServedConfig
    shards: int
    penalty_key: bytes = field(repr=False)
    relayed: bool
    """The master writes the log lines that come out of standard output."""
    mail_root: DirectoryId | None
    """The directory of all mail when the server started: a worker may be forked while its file system is not mounted."""
    known_key: bytes = field(repr=False)
    """Key of the digests of known networks (`auth.throttling.known_networks`)."""


@frozen
class ListenerSockets:
    """Listening sockets, which come beside it in the order of `places`; the shard -1 is one that all workers share."""

    places: tuple[tuple[str, int], ...]


@frozen
class PokeSockets:
    """Two sockets for each worker number come beside it: the one that receives its pokes, and the one to send them to."""

    workers: tuple[int, ...]


@frozen
class OpenMailboxMemory:
    """The memory of `open_mailbox_table` comes beside it."""


@frozen
class ForkRequest:
    """Fork a worker; its socket to the master comes beside it."""

    request: int
    """Number of this request, for the zygote's answer."""
    shard: int
    worker: int
    living: tuple[int, ...]
    """Numbers of the other workers."""


@frozen
class CertificatesChanged:
    """Serve some other certificates; also the body of an order to workers."""

    change: Any = field(repr=False)
    """`tls.serving.material.Change`."""


@frozen
class CloseListeners:
    """Close the listening sockets of places that are served no longer."""

    places: tuple[str, ...]


@frozen
class RetireZygote:
    """Fork no more, and end after the last worker."""


@frozen
class ReopenLog:
    """Open the log file anew."""


# --- To a worker


@frozen
class Query:
    """A question of the administrator, which the worker answers with a Reply."""

    request: int
    name: str
    body: Json


@frozen
class Order:
    """An order, whose result is a Reply; sockets may come beside it."""

    request: int
    name: str
    body: Any


@frozen
class SocketsAhead:
    """Sockets of the next order that do not fit beside it."""


@frozen
class PrepareReload:
    """Body of the order "prepare": a configuration that the master has checked. Sockets of its new places come beside it."""

    served: ServedConfig
    new_places: tuple[str, ...]


@frozen
class KnownNetworksTable:
    """The master's table of known networks (`KnownNetworks.to_bytes`), when a worker begins."""

    table: bytes = field(repr=False)


@frozen
class BansChanged:
    """Changes of the master's table of bans (`BannedClients.apply`); all bans when a worker begins."""

    changes: tuple[tuple[int, float], ...] = field(repr=False)


@frozen
class PeerBroadcast:
    """A Broadcast of another worker, whose text is not validated."""

    worker: int
    kind: str
    body: str


@frozen
class WorkerJoined:
    """Another worker begins."""

    worker: int


@frozen
class WorkerGone:
    """Another worker has ended."""

    worker: int


@frozen
class StatusReply:
    """The status of all workers, after a StatusRequest."""

    status: Any


# --- From the zygote to the worker that it forks


@define
class WorkerInit:
    """Everything that a worker has just after the fork."""

    served: ServedConfig
    shards: int
    shard: int
    worker: int
    """Number of the worker."""
    living: tuple[int, ...]
    penalty_key: bytes = field(repr=False)
    tls: Any
    """`tls.serving.policy.TlsPolicy`, made before the fork."""
    process_log: ProcessLog
    master: socket.socket
    """Socket to the master."""
    listening: dict[str, socket.socket]
    """Place -> listening socket."""
    mail_root: DirectoryId | None
    """As in `ZygoteInit`."""
    known_key: bytes = field(repr=False)
    poke_receive: socket.socket
    poke_send: dict[int, socket.socket]
    open_mailboxes: mmap | bytearray
    """Memory of `open_mailbox_table`, shared with the other workers."""
