"""A child of `store.scan_pool.ScanPool`: `python -m mailserver.store.maildir.sync.scan_process`.

Standard input has one JSON line an order, that of an `interfaces.ScanTooLarge`; standard output gets `[done, goal]` after
each slice and at last `"done"`, `"elsewhere"` (it is to be done where it was asked for), or `{"error": name}` of a
MailError. The end of input ends it, after the slice that it is at: it is never left behind by its server. It runs at
a low priority, in bounded memory, and imports no Twisted.
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
from mailserver.store.maildir.sync.batched_scan import AT_ONCE, Turn, read_in_batches

MAX_ORDER: Final = 64 * 1024
"""Octets of an order."""
MEMORY: Final = 2 << 30
"""Octets of memory: a million messages take 300 MiB."""
NICE: Final = 5
PAUSE: Final = 0.01
"""Seconds between two slices: who waits for the account's lock asks for it more often (`lock.wait_for`)."""
_TURN_PAUSE: Final = 0.05


def carry_out(
    order: Mapping[str, Any],
    tell: Callable[[object], None],
    *,
    abandoned: Callable[[], bool] = lambda: False,
    at_once: int = AT_ONCE,
) -> object:
    """Read that mailbox; what to answer at last. `abandoned` is asked between slices: nobody waits any more."""
    home = Home(
        order["root"],
        Settings(
            _summarise,
            order["hostname"],
            order["reserved_space_root"],
            LevelEncoding(order["utf8_names"], order["escape"], order["slashes"]),
            Bounds(order["mailboxes"], order["messages"]),
        ),
    )
    turn = None
    try:
        turn = Turn(home.paths(order["mailbox"]).new)
        while not turn.taken():
            if abandoned():
                return None
            time.sleep(_TURN_PAUSE)
        for progress in read_in_batches(home, order["mailbox"], at_once):
            tell(progress)
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
        # Nobody is there to be told: `main` ends the process, and the slices that are done stay.
        raise
    except Exception:
        traceback.print_exc()
        return "elsewhere"
    finally:
        if turn is not None:
            turn.end()
        home.close()
        gc.collect()


def _summarise(data: bytes) -> Summary:
    # Only what a dead process has left to be published is rendered here: the modules take long to load.
    from mailserver.message.render import summarise  # noqa: PLC0415

    return summarise(data)


def serve() -> None:
    """Carry out one order after another, until the input ends."""
    requests, at_once = sys.stdin.buffer, int(sys.argv[1]) if len(sys.argv) > 1 else AT_ONCE

    def abandoned() -> bool:
        # One order at a time: what can be read now is the end.
        return bool(select.select([requests], [], [], 0)[0])

    while (line := requests.readline(MAX_ORDER)).endswith(b"\n"):
        _answer(carry_out(json.loads(line), _answer, abandoned=abandoned, at_once=at_once))


def _answer(answer: object) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode("ascii") + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Serve standard input and output."""
    # Ctrl-C at a terminal reaches the whole group: the server ends us by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.nice(NICE)
    # Looking for cycles among a million names takes longer than the work; `carry_out` looks once, when it is done.
    gc.disable()
    try:
        serve()
    except BrokenPipeError:
        # The server is gone; what would be flushed at the end has no reader.
        os._exit(0)


if __name__ == "__main__":
    main()
