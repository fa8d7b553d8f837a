"""Many clients on one mailbox, in the manner of ImapTest's own_flags and own_msgs: nobody loses what is its own.

A few clients for some seconds; `make soak` has fifty, for ten minutes each way.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest

from tests.live.conftest import no_bug
from tests.server import Server
from tests.stress import commands
from tests.stress.believer import Believer, Contradiction
from tests.stress.listener import CLIENTS, EXTRA, SECONDS, emptied
from tests.stress.resync import observe
from tests.stress.truth import Truth

SEED = int(os.environ.get("MAILSERVER_SEED", "1"))


async def play(truth: Truth, number: int, end: float) -> None:
    """One client, which logs in again whenever it has left."""
    chance = random.Random(f"{SEED} {number}")
    while time.monotonic() < end:
        client = await Believer.connect(number, truth)
        try:
            await commands.select(client)
            while time.monotonic() < end and await commands.act(client, chance):
                pass
        finally:
            await client.close()


async def stress(truth: Truth) -> None:
    end = time.monotonic() + SECONDS
    async with asyncio.TaskGroup() as group:
        for number in range(truth.clients):
            group.create_task(play(truth, number, end))
        observers = [group.create_task(observe(truth, -number, end, f"{SEED} {number}")) for number in (1, 2, 3)]
    assert min(observer.result() for observer in observers) > 1
    for number in range(truth.clients):
        await check_own(truth, number)


async def check_own(truth: Truth, number: int) -> None:
    """In the end, each flag is what its owner made it, and each message that nobody deleted is there, as appended."""
    client = await Believer.connect(number, truth)
    await commands.select(client)
    if number == 0 and client.messages:
        await client.ask("FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[])")
        there = {message.uid for message in client.messages}
        if lost := truth.contents.keys() - truth.deleted - there:
            raise Contradiction(f"UIDs {sorted(lost)} are not in the mailbox")
        if strange := there - truth.contents.keys():
            raise Contradiction(f"nobody has appended UIDs {sorted(strange)}")
    await client.close()


@pytest.mark.timeout(4 * SECONDS + 300)
@pytest.mark.parametrize(("own_messages", "workers"), [(False, 2), (True, 0)], ids=["own-flags", "own-messages"])
def test_clients_of_one_mailbox_keep_what_is_their_own(tmp_path: Path, own_messages: bool, workers: int) -> None:
    with Server(tmp_path, append=EXTRA, workers=workers) as server:
        truth = Truth(server.spare_ports[0], *emptied(server), CLIENTS, own_messages)
        asyncio.run(stress(truth))
    assert truth.commands > CLIENTS
    print(f"{CLIENTS} clients: {truth.commands} commands, {truth.sessions} sessions, {len(truth.contents)} messages")
    no_bug(server.log)
