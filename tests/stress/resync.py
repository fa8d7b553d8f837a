"""Clients of the stress that only come back, again and again: QRESYNC against the flags and modseqs of all messages (RFC 7162)."""

from __future__ import annotations

import asyncio
import random
import re
import time
from typing import Any

from attrs import define, field

from tests.stress.believer import Believer, Contradiction
from tests.stress.truth import Truth
from tests.transcript_match import parse

Flags = frozenset[str]


@define(eq=False)
class Observer(Believer):
    """A connection that takes up what is told by UID."""

    flags: dict[int, Flags] = field(factory=dict)
    modseqs: dict[int, int] = field(factory=dict)
    codes: dict[str, int] = field(factory=dict)
    """UIDVALIDITY, UIDNEXT and HIGHESTMODSEQ, as told last."""

    has_new: bool = False
    """Messages have been told by EXISTS alone."""

    async def learn(self) -> None:
        """Ask for the messages that EXISTS told of, as RFC 7162 5 wants it: a modseq to note may include them."""
        while self.has_new:
            self.has_new = False
            await self.ask("UID FETCH 1:* (FLAGS MODSEQ)")

    def _take_up(self, response: bytes, *, expunges: bool) -> list[Any]:
        if code := re.match(rb"\* OK \[(UIDVALIDITY|UIDNEXT|HIGHESTMODSEQ) (\d+)\]", response):
            self.codes[code[1].decode()] = int(code[2])
        values: list[Any] = parse(response[2:])
        words = [str(value).upper() if not isinstance(value, list) else value for value in values]
        if words[0] == "VANISHED":
            for part in str(values[-1]).split(","):
                low, _, high = part.partition(":")
                for uid in range(int(low), int(high or low) + 1):
                    if uid in self.truth.contents and uid not in self.truth.deleted:
                        raise Contradiction(f"UID {uid} has vanished, and nobody has flagged it \\Deleted")
                    self.flags.pop(uid, None)
                    self.modseqs.pop(uid, None)
        elif len(words) > 2 and words[1] == "FETCH":
            told = dict(zip((str(name).upper() for name in values[2][::2]), values[2][1::2], strict=True))
            uid = int(told["UID"])
            self.flags[uid] = frozenset(flag.lower() for flag in told["FLAGS"]) - {"\\recent"}
            self.modseqs[uid] = int(told["MODSEQ"][0])
        elif words[1:2] == ["EXISTS"]:
            self.has_new = True
        elif words[1:2] == ["EXPUNGE"]:
            raise Contradiction("EXPUNGE, although QRESYNC is on")
        return values


async def observe(truth: Truth, number: int, end: float, seed: str) -> int:
    """Come back until that time; return how often."""
    chance = random.Random(seed)
    kept: dict[int, Flags] = {}
    codes: dict[str, int] = {}
    times = 0
    while time.monotonic() < end:
        client = await Observer.connect(number, truth)
        assert isinstance(client, Observer)
        try:
            await client.ask("ENABLE QRESYNC")
            client.flags = dict(kept)
            known = f" (QRESYNC ({codes['UIDVALIDITY']} {codes['HIGHESTMODSEQ']}))" if codes else " (CONDSTORE)"
            await client.ask(f"EXAMINE INBOX{known}")
            if not codes:
                await client.learn()
            kept, codes = dict(client.flags), dict(client.codes)
            await _compare(client, kept, codes)
            if chance.random() < 0.5:
                await client.idle(chance.random() / 4)
                await client.learn()
                kept, codes = dict(client.flags), dict(client.codes)
            times += 1
        finally:
            await client.close()
        await asyncio.sleep(chance.random() / 4)
    return times


async def _compare(client: Observer, kept: dict[int, Flags], codes: dict[str, int]) -> None:
    """What did not change after HIGHESTMODSEQ is as it was told, and nothing is missing."""
    client.modseqs, client.has_new = {}, False
    await client.ask("UID FETCH 1:* (FLAGS MODSEQ)")
    for uid, modseq in client.modseqs.items():
        if modseq <= codes["HIGHESTMODSEQ"]:
            if uid not in kept:
                raise Contradiction(f"UID {uid} of modseq {modseq} was not told by {codes}")
            if kept[uid] != client.flags[uid]:
                raise Contradiction(
                    f"UID {uid} of modseq {modseq} has {client.flags[uid]}, told was {kept[uid]}; {codes}"
                )
    if left := client.flags.keys() - client.modseqs.keys():
        raise Contradiction(f"UIDs {sorted(left)} are gone, and have not been told to vanish; {codes}")
