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

from mailserver.net.log.log_file import LogFile
from mailserver.net.workers.master import MasterService


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_a_log_file_that_another_process_opened_is_no_pipe(tmp_path: Path, kind: str) -> None:
    """Who is root would wait for its reader."""
    path = tmp_path / "log"
    observer = LogFile(path, None)
    observer.open()
    config = cast("Any", SimpleNamespace(listeners=(), server=SimpleNamespace(state_dir=tmp_path)))
    service = MasterService(
        config, Clock(), shards=1, make_policy=cast("Any", None), check_reload=cast("Any", None), relayed=False,
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
