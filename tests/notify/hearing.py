"""A process that has INBOX open, as a worker does, and counts what others' changes cost it: `ROOT FD` (pokes come there).

It says "ready", then how many messages it knows after each change, and at the end of its input one line of JSON.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

from mailserver.net.connection.store_threads import AccountRunner, StoreThreads
from mailserver.net.ipc.pokes import Pokes
from mailserver.notify.watcher import GATHER_TIME, Watcher
from mailserver.store.live import LiveAccounts
from mailserver.store.maildir.disk.lock import AccountLock
from mailserver.store.maildir.mailbox import mailbox as mailbox_module
from tests.store.disk import USER, open_store

reactor: Any = installed
counts = {"refreshes": 0, "locks": 0, "comparisons": 0, "told": 0, "messages": 0}


def counted(name: str, function: Any) -> Any:
    def count(*arguments: Any, **more: Any) -> Any:
        counts[name] += 1
        return function(*arguments, **more)

    return count


class ServerLink:
    """That of a worker whose others only tell."""

    number = 0
    penalty_key = b""

    def __init__(self, descriptor: int) -> None:
        self.poke_receive = socket.socket(fileno=descriptor)
        self.poke_receive.setblocking(False)
        self.poke_send: dict[int, socket.socket] = {}

    def on_gone(self, take: Any) -> None:
        pass


class Input(Protocol):
    def __init__(self, ended: Any) -> None:
        self.ended = ended

    def connectionLost(self, reason: Any = None) -> None:
        self.ended()


async def hear(root: str, descriptor: int) -> None:
    threads = StoreThreads(2)
    watcher = Watcher(reactor, reactor, gather=GATHER_TIME)
    pokes = Pokes(ServerLink(descriptor), reactor, reactor)  # type: ignore[arg-type]
    accounts = LiveAccounts(
        open_store(root),
        lambda: AccountRunner(reactor, threads),
        notify_others=counted("told", pokes.send),
        watch=watcher.watch,
        leave=watcher.leave,
        unwatch=watcher.unwatch,
    )
    live = await (await accounts.open(USER)).select("INBOX")
    pokes.start(accounts)
    watcher.start()
    refreshing: list[Any] = []

    async def refresh() -> None:
        while live.stale:
            counts["refreshes"] += 1
            await live.refresh()
        print(len(live.columns), flush=True)
        refreshing.clear()

    def poked() -> None:
        # As a session in IDLE does: in the next turn, one at a time.
        if not refreshing:
            refreshing.append(reactor.callLater(0, lambda: Deferred.fromCoroutine(refresh())))

    live.open_view(poked, read_only=True)

    def end() -> None:
        counts["messages"] = len(live.columns)
        print(json.dumps(counts), flush=True)
        reactor.stop()

    StandardIO(Input(end))
    print("ready", flush=True)


if __name__ == "__main__":
    AccountLock.__enter__ = counted("locks", AccountLock.__enter__)  # type: ignore[method-assign]
    vars(mailbox_module)["reconcile"] = counted("comparisons", vars(mailbox_module)["reconcile"])
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(hear(sys.argv[1], int(sys.argv[2]))))
    reactor.run()
