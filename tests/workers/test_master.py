"""The master's own rules, with neither processes nor sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from mailserver.net import master
from mailserver.net.log_file import LogFile
from mailserver.net.master import EARLY, MasterService


class Zygote:
    """As much of a ZygoteProcess as the master needs of one that only lives and ends."""

    pid = 1
    started = 0.0

    def begin_later(self, frames: object) -> None:
        pass


def test_where_no_zygote_can_be_started_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without memory, say: the workers serve on, and those that end must be replaced one day."""
    config = cast("Any", SimpleNamespace(listeners=(), server=SimpleNamespace(state_dir=tmp_path)))
    clock = Clock()
    service = MasterService(
        config, clock, slots=2, make_policy=cast("Any", None), judge=cast("Any", None), relayed=False
    )
    monkeypatch.setattr(service.supervisor, "replace_all", lambda: None)
    monkeypatch.setattr(service, "_reap", lambda: None)  # those of the tests
    started: list[Zygote] = []
    attempts: list[float] = []

    def start(*_arguments: object, **_named: object) -> Zygote:
        attempts.append(clock.seconds())
        if len(attempts) < 4:
            raise BlockingIOError("Resource temporarily unavailable")
        started.append(Zygote())
        return started[-1]

    monkeypatch.setattr(master, "ZygoteProcess", start)
    before = Zygote()
    service._zygote = cast("Any", before)
    clock.advance(EARLY + 1)
    service._zygote_ended(cast("Any", before))
    for _ in range(200):
        clock.advance(0.5)
    assert len(started) == 1, "and only one"
    assert service._zygote is cast("Any", started[0])
    assert attempts[0] == pytest.approx(EARLY + 1, abs=1)
    assert attempts == sorted(set(attempts))


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_a_log_file_that_another_process_opened_is_no_pipe(tmp_path: Path, kind: str) -> None:
    """Who is root would wait for its reader."""
    path = tmp_path / "log"
    observer = LogFile(path, None)
    observer.open()
    config = cast("Any", SimpleNamespace(listeners=(), server=SimpleNamespace(state_dir=tmp_path)))
    service = MasterService(
        config, Clock(), slots=1, make_policy=cast("Any", None), judge=cast("Any", None), relayed=False,
        log_file=observer,
    )  # fmt: skip
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    offered = {"file": os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT), "pipe": writer, "socket": near.detach()}
    service._take_log_file(offered.pop(kind))
    observer({"log_format": "{text}", "text": "here", "log_level": LogLevel.info, "log_namespace": "x"})
    assert ("here" in path.read_text()) == (kind != "file")
    assert ("here" in (tmp_path / "new").read_text()) == (kind == "file")
    for number in (reader, *offered.values()):
        os.close(number)
    far.close()
