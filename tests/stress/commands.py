"""What a client of the stress does next, at random."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from tests.stress.believer import Believer, Contradiction, Message, appended_uid
from tests.stress.truth import FLAGS

ITEMS = (
    "UID",
    "FLAGS",
    "INTERNALDATE",
    "RFC822.SIZE",
    "ENVELOPE",
    "BODYSTRUCTURE",
    "BODY.PEEK[HEADER.FIELDS (SUBJECT X-N)]",
)
KEYS = ("ALL", "UNSEEN", "TEXT words", "BODY words", "SUBJECT stress", "SMALLER 1000", "RECENT", "HEADER X-N 1")
MOST = 150
"""Messages above which clients delete rather than append."""


async def select(client: Believer) -> None:
    truth = client.truth
    client.messages, client.keywords = [], set()
    truth.sessions += 1
    client.selected = truth.sessions
    answer = await client.ask("SELECT INBOX")
    told = {str(values[1]).upper() for values in answer.untagged if len(values) > 1}
    if not {"EXISTS", "RECENT"} <= told or not client.keywords:
        raise Contradiction("SELECT has not told of EXISTS, RECENT and FLAGS")
    if client.messages:
        await client.ask("FETCH 1:* (UID FLAGS)", no_is_right=True)
    # Whatever nobody has begun to delete is there.
    there = {message.uid for message in client.messages}
    if lost := truth.contents.keys() - truth.deleted - there - _newer(client):
        raise Contradiction(f"UIDs {sorted(lost)} are not in the mailbox")


def _newer(client: Believer) -> set[int]:
    """UIDs above those that the client knows of: appended since it was told."""
    last = max((message.uid for message in client.messages), default=0)
    return {uid for uid in client.truth.contents if uid > last}


async def fetch(client: Believer, chance: random.Random) -> None:
    low = chance.randint(1, len(client.messages))
    high = min(len(client.messages), low + chance.choice((0, 3, 100)))
    items = chance.sample(ITEMS, chance.randint(1, 4))
    uid = chance.random() < 0.3 and all(message.uid for message in client.messages[low - 1 : high])
    numbers = f"{client.messages[low - 1].uid}:{client.messages[high - 1].uid}" if uid else f"{low}:{high}"
    command = f"{'UID ' if uid else ''}FETCH {numbers} ({' '.join(items)})"
    answer = await client.ask(command, no_is_right=not uid)
    if not answer.ok and not answer.expunge_issued:
        raise Contradiction(f"{command}: {answer.status} {answer.text}")
    told = {int(values[0]) for values in answer.untagged if len(values) > 1 and values[1] == "FETCH"}
    if answer.ok and not uid and (lacking := set(range(low, high + 1)) - told):
        raise Contradiction(f"{command} has not told of {sorted(lacking)}")


async def fetch_whole(client: Believer, chance: random.Random) -> None:
    number = chance.randint(1, len(client.messages))
    answer = await client.ask(f"FETCH {number} (UID BODY.PEEK[])", no_is_right=True)
    if not answer.ok and not answer.expunge_issued:
        raise Contradiction(f"FETCH: {answer.status} {answer.text}")


async def search(client: Believer, chance: random.Random) -> None:
    flag = chance.choice(FLAGS)
    if chance.random() < 0.5 and (flag.startswith("\\") or flag in client.keywords):
        key = f"KEYWORD {flag}" if flag.startswith("$") else flag[1:].upper()
        await _search_flag(client, flag, key)
        return
    uid = chance.choice(("", "UID "))
    await client.ask(f"{uid}SEARCH {' '.join(chance.sample(KEYS, 2))}")


async def _search_flag(client: Believer, flag: str, key: str) -> None:
    """The owner of a flag knows what must be found."""
    before = list(client.messages)
    answer = await client.ask(f"SEARCH {key}")
    found = next((values[1:] for values in answer.untagged if values[0] == "SEARCH"), None)
    if found is None:
        raise Contradiction("no SEARCH response")
    numbers = {int(number) for number in found}
    if numbers and max(numbers) > len(client.messages):
        raise Contradiction(f"SEARCH found {max(numbers)} of {len(client.messages)}")
    for number, message in enumerate(before, 1):
        if message.uid and client.truth.owns(client.number, message.uid, flag):
            expected = client.truth.flags.get((message.uid, flag), False)
            if number in numbers and not expected:
                raise Contradiction(f"SEARCH {key} found UID {message.uid}, which does not have it")
            if expected and number not in numbers and not answer.expunge_issued:
                raise Contradiction(f"SEARCH {key} has not found UID {message.uid}")


async def store(client: Believer, chance: random.Random) -> None:
    """Set or clear one flag of messages where it is one's own."""
    owned: dict[str, list[int]] = {}
    for message in client.messages:
        for flag in FLAGS:
            if message.uid and client.truth.owns(client.number, message.uid, flag):
                owned.setdefault(flag, []).append(message.uid)
    if owned:
        flag, uids = chance.choice(list(owned.items()))
        chosen = chance.sample(uids, chance.randint(1, len(uids)))
        await _store(client, chance, chosen, flag, value=chance.random() < 0.5)


async def _store(client: Believer, chance: random.Random, uids: list[int], flag: str, *, value: bool) -> None:
    uid, silent = chance.random() < 0.5, chance.random() < 0.5
    numbers = uids if uid else client.numbers(uids)
    command = f"{'UID ' if uid else ''}STORE {_set(numbers)} {'+' if value else '-'}FLAGS{'.SILENT' if silent else ''} ({flag})"
    client.begin(uids, [flag])
    answer = await client.ask(command)
    client.end(uids, [flag], value=value)
    if silent or uid:
        return
    told = {
        int(values[0]): values[2][values[2].index("FLAGS") + 1]
        for values in answer.untagged
        if len(values) > 2 and values[1] == "FETCH" and "FLAGS" in values[2]
    }
    for number in numbers:
        if number not in told:
            raise Contradiction(f"{command} has not told of {number}")
        if (flag in {each.lower() for each in told[number]}) != value:
            raise Contradiction(f"{command} told {told[number]} of {number}")


async def delete(client: Believer, chance: random.Random) -> None:
    truth = client.truth
    mine = [message.uid for message in client.messages if message.uid and truth.may_delete(client.number, message.uid)]
    if not mine:
        return
    uids = chance.sample(mine, min(len(mine), chance.randint(1, 4)))
    truth.deleted.update(uids)
    if chance.random() < 0.5:
        await client.ask(f"UID STORE {_set(uids)} +FLAGS.SILENT (\\Deleted)")
    else:
        await client.ask(f"STORE {_set(client.numbers(uids))} +FLAGS (\\Deleted)")


async def expunge(client: Believer, chance: random.Random) -> None:
    uids = [message.uid for message in client.messages if message.uid in client.truth.deleted]
    if uids and chance.random() < 0.3:
        await client.ask(f"UID EXPUNGE {_set(uids)}")
    else:
        await client.ask("EXPUNGE")


async def append(client: Believer, chance: random.Random) -> None:
    truth = client.truth
    name = f"{client.number}-{chance.randrange(10**9)}"
    lines = "".join(f"words {chance.randrange(10**6)}\r\n" for _ in range(chance.choice((1, 5, 200))))
    data = f"From: c{client.number}@example.test\r\nSubject: stress {name}\r\nX-N: {name}\r\n\r\n{lines}".encode()
    uid = appended_uid(await client.ask("APPEND INBOX", literal=data))
    if uid in truth.contents:
        raise Contradiction(f"UID {uid} is given twice")
    truth.contents[uid] = data
    truth.owners[uid] = client.number


async def copy(client: Believer, chance: random.Random) -> None:
    message: Message = chance.choice(client.messages)
    if message.uid and chance.random() < 0.5:
        await client.ask(f"UID COPY {message.uid} Trash")
    else:
        answer = await client.ask(f"COPY {client.messages.index(message) + 1} Trash", no_is_right=True)
        if not answer.ok and not answer.expunge_issued:
            raise Contradiction(f"COPY: {answer.status} {answer.text}")


_COMMANDS = {
    "append": append,
    "delete": delete,
    "expunge": expunge,
    "search": search,
    "store": store,
    "copy": copy,
}


async def act(client: Believer, chance: random.Random) -> bool:
    """One command; is the connection still there?"""
    client.truth.commands += 1
    await asyncio.sleep(0)
    many = len(client.messages) >= MOST
    what = chance.choices(
        ("append", "delete", "expunge", "fetch", "whole", "search", "store", "copy", "noop", "idle", "select", "status", "logout"),
        (2 if many else 14, 20 if many else 10, 10, 14, 8, 8, 20, 2, 6, 4, 3, 3, 3),
    )[0]  # fmt: skip
    if not client.messages and what in ("fetch", "whole", "search", "store", "copy", "delete"):
        what = "append"
    match what:
        case "fetch":
            await fetch(client, chance)
        case "whole":
            await fetch_whole(client, chance)
        case "append" | "delete" | "expunge" | "search" | "store" | "copy":
            await _COMMANDS[what](client, chance)
        case "noop":
            await client.ask(chance.choice(("NOOP", "CHECK")))
        case "idle":
            await client.idle(chance.random() / 2)
        case "select":
            await select(client)
        case "status":
            await client.ask(chance.choice(("STATUS Trash (MESSAGES UNSEEN RECENT)", 'LIST "" "*"')))
        case "logout":
            if chance.random() < 0.5:
                client.leaving = True
                await client.ask("LOGOUT")
            return False
    return True


def _set(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
