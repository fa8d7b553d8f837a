"""Queues of tests: a clock that stands, messages and their recipients, and processes that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailserver.queue import disk
from mailserver.queue.interfaces import Content, Spooled
from mailserver.queue.mail_queue import MailQueue
from mailserver.queue.model import Envelope, Settings, Target

NOW = 1_700_000_000
SETTINGS = Settings(minimum_free=0, hostname="mx.example.org")


def open_queue(directory: Path, now: int = NOW, **values: Any) -> MailQueue:
    directory.mkdir(exist_ok=True)
    return MailQueue(directory, SETTINGS, clock=lambda: now, **values)


def envelope(sender: str = "alice@example.org", **values: Any) -> Envelope:
    return Envelope(sender, values.pop("received", NOW), **values)


def target(name: str = "bob", domain: str = "example.com", **values: Any) -> Target:
    return Target(f"{name}@{domain}", values.pop("destination", domain), **values)


def put(queue: MailQueue, *targets: Target, text: bytes = b"Subject: hi\r\n\r\ntext\r\n", token: str = "", **values: Any) -> Spooled:  # fmt: skip
    """Write and accept a message."""
    spooled = queue.write(envelope(**values), targets or (target(),), Content(text))
    queue.accept([spooled], token)
    return spooled


def names(queue: MailQueue) -> set[str]:
    """The messages that have rows."""
    return {str(row[0]) for row in queue.rows.read("SELECT name FROM message")}


def killed(work: Callable[[], object], at: int) -> bool:
    """Run the work in a process that is killed at that point, counted from 1. Was it reached?"""
    child = os.fork()
    if not child:
        code = 1
        try:
            seen = 0

            def hook(_name: str) -> None:
                nonlocal seen
                seen += 1
                if seen == at:
                    os.kill(os.getpid(), signal.SIGKILL)

            disk.hook = hook
            work()
            code = 0
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed"
    return os.WIFSIGNALED(status)
