"""CONDSTORE against what it must be by the modseqs of all messages, which are asked for before and after each command."""

from __future__ import annotations

import re
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.render import summarise
from mailserver.store.memory import MemoryStore
from tests.fakes import Client
from tests.imap.resyncing import numbers_of
from tests.imap.sessions import logged_in, put, selected, services
from tests.store.disk import open_store
from tests.sweeps import choose

FLAGS = ("\\Seen", "\\Deleted", "\\Flagged", "$One")

State = dict[int, tuple[int, frozenset[str]]]
"""Modseq and flags by UID."""


def state(client: Client) -> State:
    answer = client.ask(b"m UID FETCH 1:* (FLAGS MODSEQ)\r\n").decode()
    return responses(answer)


def responses(answer: str) -> State:
    """The FETCH responses; flags are those told."""
    found: State = {}
    for line in re.findall(r"^\* \d+ FETCH \((.*)\)\r$", answer, re.MULTILINE):
        uid = re.search(r"UID (\d+)", line)
        modseq = re.search(r"MODSEQ \((\d+)\)", line)
        flags = re.search(r"FLAGS \(([^)]*)\)", line)
        assert uid, "RFC 7162 3.2.4"
        assert modseq, "RFC 7162 3.2.4"
        found[int(uid[1])] = int(modseq[1]), frozenset((flags[1] if flags else "").split()) - {"\\Recent"}
    return found


def changed(before: frozenset[str], how: str, flags: list[str]) -> frozenset[str]:
    return {"+": before | set(flags), "-": before - set(flags), "": frozenset(flags)}[how]


STORES = st.tuples(
    st.just("store"), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.sampled_from(["+", "-", ""]),
    st.lists(st.sampled_from(FLAGS), min_size=1, max_size=2, unique=True), st.booleans(),
    st.one_of(st.none(), st.integers(0, 6)),
)  # fmt: skip
STEPS = st.one_of(
    STORES, STORES, st.tuples(st.just("other"), st.integers(0, 9), st.sampled_from(FLAGS)), st.tuples(st.just("put")),
    st.tuples(st.just("expunge")), st.tuples(st.just("read"), st.integers(0, 9)), st.tuples(st.just("since"), st.integers(0, 6)),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["memory", "maildir"])
@settings(max_examples=choose(25, whole=500))
@given(steps=st.lists(STEPS, min_size=3, max_size=14))
def test_modseqs_are_what_they_must_be(kind: str, steps: list) -> None:
    with tempfile.TemporaryDirectory() as root:
        service = services(store=MemoryStore(summarise) if kind == "memory" else open_store(root))
        client, other = selected(service, messages=4), selected(service)
        client.ask(b"e ENABLE CONDSTORE\r\n")
        for step in steps:
            before = state(client)
            highest = max((modseq for modseq, _flags in before.values()), default=0)
            levels = [0, *sorted({modseq for modseq, _flags in before.values()}), 2**63 - 1]
            match step:
                case ["store", picks, how, flags, silent, level] if before:
                    uids = sorted({sorted(before)[pick % len(before)] for pick in picks})
                    since = 2**63 if level is None else levels[level % len(levels)]
                    modifier = "" if level is None else f"(UNCHANGEDSINCE {since}) "
                    names = ",".join(map(str, uids))
                    item = f"{how}FLAGS{'.SILENT' if silent else ''} ({' '.join(flags)})"
                    answer = client.ask(f"t UID STORE {names} {modifier}{item}\r\n".encode()).decode()
                    after, told = state(client), responses(answer)
                    refused = [uid for uid in uids if before[uid][0] > since]
                    code = re.search(r"t OK \[MODIFIED ([0-9:,]+)\]", answer)
                    assert (numbers_of(code[1]) if code else []) == refused
                    for uid in uids:
                        wanted = before[uid][1] if uid in refused else changed(before[uid][1], how, flags)
                        assert after[uid][1] == wanted
                        assert (after[uid][0] > highest) == (wanted != before[uid][1])
                        if level is not None or not silent or wanted != before[uid][1]:
                            assert told[uid][0] == after[uid][0]
                            assert silent or told[uid][1] == wanted
                            assert uid not in refused or told[uid][1] == wanted
                    assert all(after[uid] == before[uid] for uid in before if uid not in uids)
                case ["other", pick, flag] if before:
                    uid = sorted(before)[pick % len(before)]
                    other.ask(f"n NOOP\r\no UID STORE {uid} +FLAGS.SILENT ({flag})\r\n".encode())
                    told = responses(client.ask(b"t NOOP\r\n").decode())
                    assert told == ({} if flag in before[uid][1] else {uid: state(client)[uid]})
                case ["put"]:
                    put(logged_in(service))
                    client.ask(b"t NOOP\r\n")
                    after = state(client)
                    assert [modseq > highest for modseq, _flags in (after[uid] for uid in after.keys() - before)] == [
                        True
                    ]
                case ["expunge"]:
                    client.ask(b"t EXPUNGE\r\n")
                    after = state(client)
                    assert after == {uid: each for uid, each in before.items() if "\\Deleted" not in each[1]}
                    status = re.search(rb"HIGHESTMODSEQ (\d+)", client.ask(b"t STATUS INBOX (HIGHESTMODSEQ)\r\n"))
                    assert status
                    assert (int(status[1]) > highest) or len(after) == len(before)
                case ["read", pick] if before:
                    number = pick % len(before)
                    uid = sorted(before)[number]
                    answer = client.ask(f"t FETCH {number + 1} (BODY[TEXT])\r\n".encode()).decode()
                    after = state(client)
                    assert after[uid][1] == before[uid][1] | {"\\Seen"}
                    assert (f"MODSEQ ({after[uid][0]})" in answer) == ("\\Seen" not in before[uid][1])
                case ["since", level]:
                    since = levels[level % len(levels)]
                    newer = {uid: each for uid, each in before.items() if each[0] > since}
                    answer = client.ask(f"t UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since})\r\n".encode()).decode()
                    assert responses(answer) == newer
                    found = re.search(
                        r"\* SEARCH((?: \d+)*)(?: \(MODSEQ (\d+)\))?\r",
                        client.ask(f"t UID SEARCH MODSEQ {since}\r\n".encode()).decode(),
                    )
                    assert found
                    matching = {uid: each for uid, each in before.items() if each[0] >= since}
                    assert [int(uid) for uid in found[1].split()] == sorted(matching)
                    assert found[2] == (str(max(modseq for modseq, _flags in matching.values())) if matching else None)
        for each in (client, other):
            each.hang_up()
