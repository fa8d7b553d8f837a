"""Settings of Python for a process that does nothing but serve mail. They hold for the whole process, other programs' code included."""

from __future__ import annotations

import gc
import sys
from typing import Final

GC_THRESHOLDS: Final = (20_000, 20, 20)
"""New objects before Python looks for cycles; a look at everything holds up every client."""
SWITCH_INTERVAL: Final = 0.0001
"""Seconds that a thread keeps Python's lock while another one waits; the default is fifty times as long.

A thread of the store gives the lock up at each call of the system, and waits for it again as long as the reactor is busy.
"""


def tune_interpreter() -> None:
    """Set them, once the objects are made that stay to the end."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    # A mailbox being read makes many objects and no cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
