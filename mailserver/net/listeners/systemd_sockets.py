"""Listening sockets that systemd passes (sd_listen_fds(3)). It keeps them open while the server restarts, and clients wait."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from mailserver.config.model import Config
from mailserver.net.listeners.binding import place_of, places


class UnusableSocket(Exception):
    """A passed socket that cannot be served; the text says why."""


class SystemdSockets:
    """The sockets by place, for the life of the process: a listener that was removed may come back."""

    def __init__(self, sockets: Iterable[socket.socket] = ()) -> None:
        """Raises: UnusableSocket."""
        self._by_place: dict[str, socket.socket] = {}
        for opened in sockets:
            place = _check(opened)
            if place in self._by_place:
                raise UnusableSocket(f"systemd hands over {place} twice: once is enough for all workers")
            self._by_place[place] = opened

    def at(self, place: str) -> socket.socket | None:
        """A duplicate of the socket of a place; None without one. Raises: OSError."""
        opened = self._by_place.get(place)
        return None if opened is None else opened.dup()

    def has(self, place: str) -> bool:
        """Has systemd passed the socket of a place? Its file is systemd's then."""
        return place in self._by_place

    def unserved(self, config: Config) -> list[str]:
        """A line for each socket without a listener in a configuration, with what to do."""
        served = {place for listener in config.listeners for place in places(listener)}
        return [
            f"systemd holds {place} open, and no [[listener]] serves it: clients that connect there wait in vain."
            " Take it out of the socket unit, or add the listener"
            for place in self._by_place
            if place not in served
        ]


def _check(opened: socket.socket) -> str:
    """Check a socket; its place. Raises: UnusableSocket."""
    if opened.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        kind = getattr(opened.family, "name", opened.family)
        raise UnusableSocket(f"systemd hands over a socket of {kind}: only ports and Unix sockets are served")
    name = opened.getsockname()
    place = place_of(*name[:2]) if isinstance(name, tuple) else os.fsdecode(name).replace("\0", "@")
    if opened.type != socket.SOCK_STREAM or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise UnusableSocket(f"systemd hands over {place}, which accepts no connections: only ListenStream= is served")
    if name[0] == "::" and not opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise UnusableSocket(
            f"systemd hands over {place} for IPv4, too: the socket unit needs BindIPv6Only=ipv6-only,"
            " and a line of its own for 0.0.0.0"
        )
    opened.setblocking(False)
    return place
