"""Where /proc hides other processes, what one of them has begun is not taken for left behind."""

from __future__ import annotations

import os
import subprocess

import pytest

from mailserver.store.maildir.disk import process_start


def test_a_process_that_is_hidden_is_alive_while_it_may_be_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = f"{process.pid} {process_start._started(process.pid)}"
        assert process_start.is_alive(owner)
        monkeypatch.setattr(process_start, "_ticks", lambda pid: None if pid != os.getpid() else 1)
        assert process_start.is_alive(owner)
        other_boot = f"{process.pid} another-boot 7"
        assert not process_start.is_alive(other_boot), "of another start of the machine"
        process.kill()
    assert not process_start.is_alive(owner)
    for nonsense in ("", None, "0 " + process_start.boot_id() + " 1", "99999999999 x 1"):
        assert not process_start.is_alive(nonsense)
