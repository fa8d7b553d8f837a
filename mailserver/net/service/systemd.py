"""Notify systemd of the service's state, and take the sockets that it hands over: sd_notify(3), sd_listen_fds(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.python.systemd import ListenFDs


def notify(*words: str) -> None:
    """Send a notification where systemd listens for it; errors are ignored."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.setblocking(False)
        to.sendto("\n".join(words).encode(), f"\0{path[1:]}" if path.startswith("@") else path)


def reloading() -> None:
    """Notify that a reload begins; `notify("READY=1")` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def take_sockets() -> list[socket.socket]:
    """Return the sockets that systemd hands over; no child process inherits them. Raises: OSError."""
    if "LISTEN_FDNAMES" not in os.environ:
        return []
    names = os.environ["LISTEN_FDNAMES"].split(":")
    numbers = ListenFDs.fromEnvironment().inheritedDescriptors()
    if not numbers and "LISTEN_PID" not in os.environ and "twisted.internet.endpoints" in sys.modules:
        # That module takes the other variables out of the environment when it is loaded, as a plugin of twistd's may have
        # done; the names give the number of descriptors, and the first is 3 (sd_listen_fds(3)).
        numbers = list(range(3, 3 + len(names)))
    del os.environ["LISTEN_FDNAMES"]
    for number in numbers:
        os.set_inheritable(number, False)
    return [socket.socket(fileno=number) for number in numbers]


def watchdog(reactor: Any) -> LoopingCall | None:
    """Send signs of life as often as systemd wants them, as long as the reactor runs."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        return None
    if seconds <= 0:
        return None
    beats = LoopingCall(notify, "WATCHDOG=1")
    beats.clock = reactor
    beats.start(seconds)
    return beats
