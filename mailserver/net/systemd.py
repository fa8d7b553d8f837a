"""What systemd is told of the service, where it asks for it: sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

from twisted.internet.task import LoopingCall


def notify(*words: str) -> None:
    """Tell it, where it listens; nothing depends on it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.setblocking(False)
        to.sendto("\n".join(words).encode(), f"\0{path[1:]}" if path.startswith("@") else path)


def reloading() -> None:
    """A reload begins; `notify("READY=1")` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog(reactor: Any) -> LoopingCall | None:
    """Signs of life as often as it wants them, as long as the reactor turns."""
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
