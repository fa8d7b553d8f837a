"""A process is told from a later one that got its number."""

from __future__ import annotations

import subprocess
import sys
import time

from mailserver.store.maildir.disk.process_start import boot_id, is_alive, owner, process_start


def test_the_start_of_a_process_is_known():
    before = time.time()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(process.pid)
    assert started is not None
    assert before - 1 < started < time.time() + 1
    process.communicate(b"\n")
    assert process_start(process.pid) is None


def test_an_owner_is_alive_as_long_as_its_process_and_no_longer():
    code = "from mailserver.store.maildir.disk.process_start import owner; print(owner(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    told = process.stdout.readline().strip()
    assert is_alive(owner())
    assert is_alive(told)
    pid, boot, ticks = told.split()
    assert boot == boot_id()
    assert not is_alive(f"{pid} {boot} {int(ticks) + 1}"), "another process that got its number"
    assert not is_alive(f"{pid} another-start {ticks}")
    process.communicate("\n")
    assert not is_alive(told)


def test_what_is_no_owner_is_not_alive():
    for who in (None, "", "1", "x y z", 7, [], "1 "):
        assert not is_alive(who)
