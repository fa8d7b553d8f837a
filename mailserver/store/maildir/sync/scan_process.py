"""A child process of `store.scan_pool.ScanPool`: `python -m mailserver.store.maildir.sync.scan_process`.

Standard input has one JSON line an order, that of an `interfaces.ScanTooLarge`. Standard output gets `[done, goal]`
after each batch and at last `"done"`, `"elsewhere"` (the caller must do it), or `{"error": name}` of a MailError. It
ends after its current batch at the end of input, so it never outlives its server. It runs at a low priority, in bounded
memory, and imports no Twisted.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

from mailserver.errors import MailError, StoreUnavailable
from mailserver.message.summary import Summary
from mailserver.store.interfaces import Bounds
from mailserver.store.maildir.format.names import LevelEncoding
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.home.settings import Settings
from mailserver.store.maildir.sync.batched_scan import AT_ONCE, ScanLock, read_in_batches

MAX_ORDER: Final = 64 * 1024
"""Octets of an order."""
MEMORY: Final = 2 << 30
"""Octets of memory: a million messages take 300 MiB."""
NICE: Final = 5
PAUSE: Final = 0.01
"""Seconds between two batches: processes that wait for the account's lock try it more often (`lock.wait_for`)."""
_TURN_PAUSE: Final = 0.05


def carry_out(
    order: Mapping[str, Any],
    report: Callable[[object], None],
    *,
    abandoned: Callable[[], bool] = lambda: False,
    at_once: int = AT_ONCE,
) -> object:
    """Read that mailbox. Return the last answer. `abandoned` is checked between batches: nobody waits any more."""
    home = Home(
        order["root"],
        Settings(
            _summarise,
            order["hostname"],
            order["reserved_space_root"],
            LevelEncoding(order["utf8_names"], order["escape"], order["slashes"]),
            Bounds(order["mailboxes"], order["messages"], order["expunges"]),
        ),
    )
    scan_lock = None
    try:
        scan_lock = ScanLock(home.paths(order["mailbox"]).new)
        while not scan_lock.acquire():
            if abandoned():
                return None
            time.sleep(_TURN_PAUSE)
        for progress in read_in_batches(home, order["mailbox"], at_once):
            report(progress)
            if abandoned():
                return None
            time.sleep(PAUSE)
        # On a full disk the index was made in this process's memory.
        return "elsewhere" if home.index().in_memory else "done"
    except MailError as error:
        return {"error": type(error).__name__}
    except MemoryError:
        return {"error": StoreUnavailable.__name__}
    except BrokenPipeError:
        # Nobody waits for the answer: `main` ends the process, and the finished batches stay.
        raise
    except Exception:
        traceback.print_exc()
        return "elsewhere"
    finally:
        if scan_lock is not None:
            scan_lock.release()
        home.close()
        gc.collect()


def _summarise(data: bytes) -> Summary:
    # Only messages that a dead process left to be published are rendered here: the modules take long to load.
    from mailserver.message.render import summarise  # noqa: PLC0415

    return summarise(data)


def serve() -> None:
    """Carry out one order after another, until the input ends."""
    requests, at_once = sys.stdin.buffer, int(sys.argv[1]) if len(sys.argv) > 1 else AT_ONCE

    def abandoned() -> bool:
        # One order at a time: if there is something to read now, it is the end.
        return bool(select.select([requests], [], [], 0)[0])

    while (line := requests.readline(MAX_ORDER)).endswith(b"\n"):
        _answer(carry_out(json.loads(line), _answer, abandoned=abandoned, at_once=at_once))


def _answer(answer: object) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode("ascii") + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Serve standard input and output."""
    # Ctrl-C at a terminal reaches the whole group: the server ends this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.nice(NICE)
    # Garbage collection among a million names takes longer than the work; `carry_out` collects once, at the end.
    gc.disable()
    try:
        serve()
    except BrokenPipeError:
        # The server is gone; a flush at the end has no reader.
        os._exit(0)


if __name__ == "__main__":
    main()
