"""Start times of the machine and of processes, which tell a process from a later one with the same pid."""

from __future__ import annotations

import contextlib
import os
import time


def boot_id() -> str:
    """Return an id of this boot of the machine; "" if the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(64).strip()
    return ""


def boot_time() -> float:
    """Return the machine's start in seconds since 1970."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def process_start(pid: int) -> float | None:
    """Return a process's start in seconds since 1970; None if the system does not tell."""
    ticks = _ticks(pid)
    return None if ticks is None else boot_time() + ticks / os.sysconf("SC_CLK_TCK")


def owner() -> str:
    """Return an id of this process that a later one with the same pid does not have."""
    return f"{os.getpid()} {_started(os.getpid())}"


def is_alive(who: object) -> bool:
    """Tell whether the process of that `owner()` still runs.

    Where the system hides processes (ProtectProc= of systemd, hidepid= of /proc), processes of the service that changed
    their user are hidden, too. Then a process that may be sent a signal counts as the owner: only processes of its user
    may do that.
    """
    pid, _, started = str(who or "").partition(" ")
    if not started or not pid.isdigit() or len(pid) > 10:
        return False
    found = _started(int(pid))
    if found:
        return found == started
    return started.partition(" ")[0] == boot_id() and _may_be_signalled(int(pid))


def _may_be_signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return pid > 0


def _started(pid: int) -> str:
    """Return boot id and start time of a process; "" if there is none."""
    ticks, boot = _ticks(pid), boot_id()
    return f"{boot} {ticks}" if boot and ticks is not None else ""


def _ticks(pid: int) -> int | None:
    """Return the clock ticks between the machine's start and a process's."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is a name in parentheses, which may contain spaces; starttime is field 22.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
