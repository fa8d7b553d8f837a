"""Return freed memory to the system."""

from __future__ import annotations

import ctypes


def return_free_memory() -> None:
    """Have the C library return the memory that is free in its heaps (malloc_trim(3)), if it can.

    Some milliseconds for a hundred MiB; call it in a thread. Other threads run meanwhile.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
