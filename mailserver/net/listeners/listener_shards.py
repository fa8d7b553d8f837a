"""The listening sockets of the master: one for each shard of a place, open as long as the place is served.

Connections in a socket's queue outlive the worker that would have accepted them, as the master has the socket, too. The
number of shards is fixed for the life of the master: closing one of several sockets of a port resets the connections in
its queue.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from mailserver.net.ipc.frames import MAX_DESCRIPTORS
from mailserver.net.ipc.master_messages import ListenerSockets
from mailserver.net.listeners.binding import BoundSocket

SHARED = -1
"""The shard of a socket that all workers share: a Unix socket, or one that systemd has passed."""


class ListenerShards:
    """The sockets of each place, by shard."""

    def __init__(self) -> None:
        self._by_place: dict[str, list[BoundSocket]] = {}

    @property
    def places(self) -> set[str]:
        """The places that are open."""
        return set(self._by_place)

    def add(self, opened: Sequence[BoundSocket]) -> None:
        """Keep the sockets that `binding.bind` has opened."""
        for bound in opened:
            self._by_place.setdefault(bound.place, []).append(bound)

    def of_shard(self, shard: int, places: Sequence[str]) -> list[socket.socket]:
        """The sockets of these places that a worker of the shard serves."""
        found = (self._by_place[place] for place in places)
        return [bounds[0 if _is_shared(bounds) else shard].socket for bounds in found]

    def frames(self, places: set[str]) -> Iterator[tuple[ListenerSockets, list[socket.socket]]]:
        """The sockets of these places, as messages to a zygote."""
        entries = [
            ((place, SHARED if _is_shared(bounds) else shard), bound.socket)
            for place, bounds in self._by_place.items()
            if place in places
            for shard, bound in enumerate(bounds)
        ]
        for start in range(0, len(entries), MAX_DESCRIPTORS):
            part = entries[start : start + MAX_DESCRIPTORS]
            yield ListenerSockets(tuple(key for key, _socket in part)), [opened for _key, opened in part]

    def close(self, places: set[str]) -> list[BoundSocket]:
        """Close the sockets of these places; the caller removes the files of Unix sockets."""
        closed = [bound for place in places for bound in self._by_place.pop(place, ())]
        for bound in closed:
            bound.socket.close()
        return closed


def _is_shared(bounds: Sequence[BoundSocket]) -> bool:
    return len(bounds) == 1
