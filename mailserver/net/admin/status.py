"""The status of a process that serves: its listeners, sessions and memory, and what its services measure."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, succeed

from mailserver.net.ipc.event_counters import EventCounters
from mailserver.net.ipc.message_schema import Json, unstructure
from mailserver.net.ipc.worker_messages import ListenerStatus, SessionCounts
from mailserver.net.listeners.binding import Port

CONNECTION_OCTETS: Final = 60 * 1024
ACCOUNT_OCTETS: Final = 100 * 1024
INDEX_OCTETS: Final = 200 * 1024
MESSAGE_OCTETS: Final = 40
"""Octets that each connection, open account, open index and message of an open or kept mailbox should take at most."""
OTHER_OCTETS: Final = 24 << 20
"""Octets for all else since the start: code that ran for the first time, parsed arguments, freed memory in the heap."""


class Status:
    """The status of this process."""

    def __init__(
        self,
        ports: Callable[[], Iterable[Port]],
        service_status: Callable[[], dict[str, Json]],
        event_counters: EventCounters,
    ) -> None:
        """`service_status()`: the certificates, and numbers by name (`serving.ProcessServices.status`)."""
        self._ports = ports
        self._service_status = service_status
        self._event_counters = event_counters
        self._since = time.time()
        self._resident_at_start = resident()

    def status(self, _asked: Json) -> Deferred[Json]:
        """Return a WorkerStatus."""
        ports = list(self._ports())
        measures = self._service_status()
        memory = resident()
        measures["session_octets"] = [
            max(0, memory - self._resident_at_start),
            session_octets_expected(sum(len(port.connections) for port in ports), measures),
        ]
        return succeed(
            unstructure(
                {
                    "pid": os.getpid(),
                    "since": int(self._since),
                    "memory": memory,
                    "descriptors": len(os.listdir("/proc/self/fd")),
                    "descriptors_most": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                    "listeners": [_listener(port) for port in ports],
                    "sessions": _sessions(ports),
                    "certificates": measures.pop("certificates"),
                    "event_counters": self._event_counters.rows(),
                    "measures": measures,
                }
            )
        )


def session_octets_expected(connections: int, measures: Mapping[str, Json]) -> int:
    """Return the octets of memory since the start that are to be expected at most, with what is open and cached now."""

    def number(name: str) -> int:
        value = measures.get(name, 0)
        return int(cast("Any", value[0] if isinstance(value, list) else value))

    return (
        OTHER_OCTETS
        + CONNECTION_OCTETS * connections
        + ACCOUNT_OCTETS * (number("accounts_in_use") + number("accounts_kept"))
        + INDEX_OCTETS * number("indexes")
        + MESSAGE_OCTETS * (number("messages_in_use") + number("messages_kept"))
        + number("message_octets")
    )


def resident() -> int:
    """Return the octets of this process's memory that are in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _listener(port: Port) -> ListenerStatus:
    listener = port.listener
    return ListenerStatus(
        place=port.place,
        protocol=listener.protocol,
        tls="implicit" if listener.implicit_tls else "STARTTLS" if listener.starttls else "none",
        cleartext=listener.cleartext != "never" or listener.nonplaintext_without_tls,
        connections=len(port.connections),
    )


def _sessions(ports: Iterable[Port]) -> SessionCounts:
    """Count connections by protocol, by protocol and TLS version, and those that have logged in."""
    by_protocol: Counter[str] = Counter()
    by_tls: Counter[tuple[str, str]] = Counter()
    logged_in = 0
    for port in ports:
        for connection in port.connections:
            info = connection.info
            by_protocol[info.protocol] += 1
            by_tls[info.protocol, "none" if info.tls is None else info.tls.version] += 1
            logged_in += connection.user is not None
    return SessionCounts(
        all=by_protocol.total(),
        logged_in=logged_in,
        by_protocol=dict(sorted(by_protocol.items())),
        by_tls=tuple((protocol, tls, number) for (protocol, tls), number in sorted(by_tls.items())),
    )
