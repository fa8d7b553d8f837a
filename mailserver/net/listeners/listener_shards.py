"""The listening sockets of the master: for each place one a shard, kept open as long as the place is served.

Connections that wait in a socket's queue outlive the worker that would have taken them, as the master has the socket
too. The number of shards is fixed for the life of the master: closing one of several sockets of a port resets what
waits in it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from mailserver.net.ipc.frames import MAX_DESCRIPTORS
from mailserver.net.ipc.master_messages import ListenerSockets
from mailserver.net.listeners.binding import Bound

SHARED = -1
"""The shard of what all workers share: a Unix socket, or one that systemd has handed over."""


class ListenerShards:
    """Place -> its sockets by shard."""

    def __init__(self) -> None:
        self._by_place: dict[str, list[Bound]] = {}

    @property
    def places(self) -> set[str]:
        """What is open."""
        return set(self._by_place)

    def add(self, opened: Sequence[Bound]) -> None:
        """Keep what `listeners.bind` has opened."""
        for bound in opened:
            self._by_place.setdefault(bound.place, []).append(bound)

    def of_shard(self, shard: int, places: Sequence[str]) -> list[socket.socket]:
        """The sockets of these places that a worker of the shard serves."""
        found = (self._by_place[place] for place in places)
        return [bounds[0 if _is_shared(bounds) else shard].socket for bounds in found]

    def frames(self, places: set[str]) -> Iterator[tuple[ListenerSockets, list[socket.socket]]]:
        """For a zygote: the sockets of these places."""
        entries = [
            ((place, SHARED if _is_shared(bounds) else shard), bound.socket)
            for place, bounds in self._by_place.items()
            if place in places
            for shard, bound in enumerate(bounds)
        ]
        for start in range(0, len(entries), MAX_DESCRIPTORS):
            part = entries[start : start + MAX_DESCRIPTORS]
            yield ListenerSockets(tuple(key for key, _socket in part)), [opened for _key, opened in part]

    def close(self, places: set[str]) -> list[Bound]:
        """Close them; a Unix socket's file is the caller's to remove."""
        closed = [bound for place in places for bound in self._by_place.pop(place, ())]
        for bound in closed:
            bound.socket.close()
        return closed


def _is_shared(bounds: Sequence[Bound]) -> bool:
    return len(bounds) == 1
