"""Where /proc hides other processes, what one of them has begun is not taken for left behind."""

from __future__ import annotations

import os
import subprocess

import pytest

from mailserver.store.maildir import starts


def test_a_process_that_is_hidden_is_alive_while_it_may_be_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = f"{process.pid} {starts._started(process.pid)}"
        assert starts.is_alive(owner)
        monkeypatch.setattr(starts, "_ticks", lambda pid: None if pid != os.getpid() else 1)
        assert starts.is_alive(owner)
        other_boot = f"{process.pid} another-boot 7"
        assert not starts.is_alive(other_boot), "of another start of the machine"
        process.kill()
    assert not starts.is_alive(owner)
    for nonsense in ("", None, "0 " + starts.boot_id() + " 1", "99999999999 x 1"):
        assert not starts.is_alive(nonsense)
