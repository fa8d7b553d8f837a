"""Settings of Python for a process that only serves mail. They hold for the whole process, so embedded factories leave them alone."""

from __future__ import annotations

import gc
import sys
from typing import Final

GC_THRESHOLDS: Final = (20_000, 20, 20)
"""New objects before the garbage collector runs; a full collection holds up every client."""
SWITCH_INTERVAL: Final = 0.0001
"""Seconds that a thread keeps Python's lock while another one waits; the default is fifty times as long.

A thread of the store releases the lock at each system call, and waits for it again as long as the reactor is busy.
"""


def tune_interpreter() -> None:
    """Apply the settings, once the objects exist that stay to the end."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    # A mailbox being read makes many objects and no cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
