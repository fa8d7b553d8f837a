"""Two sessions change one mailbox at random; what each has been told must be the truth in the end.

A client here believes only what it is told (RFC 3501 7.3, 7.4) and what its own silent STOREs make of it (6.4.6).
"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.services import Services
from tests.fakes import Client
from tests.imap.sessions import connect, services
from tests.sweeps import choose
from tests.transcript_match import parse, split_responses

FLAGS = ("\\Seen", "\\Deleted", "\\Flagged", "$One", "$Two")


class Believer:
    """What a client knows: its messages in order, each with UID and flags once told."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.messages: list[dict[str, Any]] = []
        client.send(b"l LOGIN anna@example.test secret\r\n")
        client.take()
        self.ask("SELECT INBOX")

    def ask(self, command: str) -> str:
        numbered = command.split(maxsplit=1)[0] in ("FETCH", "STORE", "SEARCH")
        return self.hear(self.client.ask(f"t {command}\r\n".encode()), expunge_allowed=not numbered)

    def hear(self, data: bytes, *, expunge_allowed: bool = True) -> str:
        """Take up what came; the tagged answer's first word. RFC 3501 7.4.1 says where EXPUNGE may not come."""
        responses, rest = split_responses(data)
        assert not rest
        status = ""
        for response in responses:
            if response.startswith(b"t "):
                assert not status, "something came after the tagged answer"
                status = response.split()[1].decode()
            elif response.startswith(b"* "):
                assert not status, "something came after the tagged answer"
                assert expunge_allowed or not response.endswith(b" EXPUNGE")
                self._believe(parse(response[2:]))
        return status

    def _believe(self, response: list[Any]) -> None:
        if len(response) < 2:
            return
        number, kind = response[0], response[1]
        if kind == "EXISTS":
            assert int(number) >= len(self.messages), "EXISTS must not shrink a mailbox"
            self.messages += [{} for _ in range(int(number) - len(self.messages))]
        elif kind == "EXPUNGE":
            del self.messages[int(number) - 1]
        elif kind == "FETCH":
            known = self.messages[int(number) - 1]
            pairs = dict(zip(response[2][::2], response[2][1::2], strict=True))
            if "UID" in pairs:
                assert known.setdefault("uid", pairs["UID"]) == pairs["UID"], "a sequence number has moved"
            if "FLAGS" in pairs:
                known["flags"] = {flag.lower() for flag in pairs["FLAGS"]} - {"\\recent"}

    def store_silently(self, numbers: list[int], how: str, flags: list[str], *, uid: bool) -> None:
        """A silent STORE, and what the client then takes for granted."""
        places = sorted({number % len(self.messages) for number in numbers})
        if uid:
            meant = [at for at in places if "uid" in self.messages[at]]
            if not meant:
                return
            names = ",".join(self.messages[at]["uid"] for at in meant)
            before = [self.messages[at] for at in meant]
            status = self.ask(f"UID STORE {names} {how}FLAGS.SILENT ({' '.join(flags)})")
        else:
            before = [self.messages[at] for at in places]
            names = ",".join(str(at + 1) for at in places)
            # Its own change comes first: what the answer tells of others is newer.
            for known in before:
                self._change(known, how, flags)
            status = self.ask(f"STORE {names} {how}FLAGS.SILENT ({' '.join(flags)})")
        assert status in ("OK", "NO")
        if uid:
            for known in before:
                known.pop("flags", None)

    @staticmethod
    def _change(known: dict[str, Any], how: str, flags: list[str]) -> None:
        lower = {flag.lower() for flag in flags}
        if not how:
            known["flags"] = lower
        elif "flags" in known:
            known["flags"] = known["flags"] | lower if how == "+" else known["flags"] - lower


NUMBERS = st.lists(st.integers(0, 3), min_size=1, max_size=4)
SOME_FLAGS = st.lists(st.sampled_from(FLAGS), min_size=1, max_size=3, unique=True)
STORE = st.tuples(st.just("store"), NUMBERS, st.sampled_from(["+", "-", ""]), SOME_FLAGS, st.booleans(), st.booleans())
STEPS = st.one_of(
    st.tuples(st.just("append"), SOME_FLAGS),
    STORE,
    STORE,
    STORE,
    st.tuples(st.sampled_from(["noop", "noop", "expunge", "idle", "copy", "move", "reselect", "pipeline"])),
)


def step(believer: Believer, what: tuple[Any, ...]) -> None:
    match what:
        case ("append", flags):
            assert believer.ask(f"APPEND INBOX ({' '.join(flags)}) {{6+}}\r\nA: b\r\n") == "OK"
        case ("store", numbers, how, flags, silent, uid) if believer.messages:
            if silent:
                believer.store_silently(numbers, how, flags, uid=uid)
            else:
                names = ",".join(str(number % len(believer.messages) + 1) for number in numbers)
                assert believer.ask(f"STORE {names} {how}FLAGS ({' '.join(flags)})") in ("OK", "NO")
        case ("noop" | "expunge",):
            assert believer.ask(what[0].upper()) == "OK"
        case ("idle",):
            believer.hear(re.sub(rb"^\+ [^\r]*\r\n", b"", believer.client.ask(b"t IDLE\r\n")))
            believer.hear(believer.client.ask(b"DONE\r\n"))
        case ("uids",) if believer.messages:
            assert believer.ask("FETCH 1:* (UID FLAGS)") in ("OK", "NO")
        case ("copy",) if believer.messages:
            assert believer.ask("COPY 1 INBOX") in ("OK", "NO")
        case ("move",) if believer.messages:
            assert believer.ask(f"MOVE {len(believer.messages)} Trash") in ("OK", "NO")
        case ("reselect",):
            believer.messages = []
            assert believer.ask("SELECT INBOX") == "OK"
        case ("pipeline",) if believer.messages:
            data = believer.client.ask(b"u FETCH 1 FLAGS\r\nv STORE 1 +FLAGS.SILENT ()\r\nt NOOP\r\n")
            responses, _rest = split_responses(data)
            assert not any(response.endswith(b" EXPUNGE") for response in responses[: _place(responses, b"v ")])
            kept = [response for response in responses if not response.startswith((b"u ", b"v "))]
            assert believer.hear(b"".join(response + b"\r\n" for response in kept)) == "OK"


def _place(responses: list[bytes], start: bytes) -> int:
    return next(at for at, response in enumerate(responses) if response.startswith(start))


@settings(max_examples=choose(80, whole=200), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), STEPS), min_size=4, max_size=20))
def test_both_know_the_truth_in_the_end(steps: list[tuple[int, tuple[Any, ...]]]) -> None:
    service = services()
    believers = [Believer(connect(service)), Believer(connect(service))]
    for _number in range(3):
        step(believers[0], ("append", []))
    for believer in believers:
        assert believer.ask("NOOP") == "OK"
        step(believer, ("uids",))
    for who, what in steps:
        step(believers[who], what)
        if what[0] in ("noop", "idle", "copy", "move"):
            knows_the_truth(believers[who], service)
    for believer in believers:
        assert believer.ask("NOOP") == "OK"
        knows_the_truth(believer, service)


def knows_the_truth(believer: Believer, service: Services) -> None:
    witness = Believer(connect(service))
    witness.ask("UID FETCH 1:* FLAGS")
    witness.client.hang_up()
    assert len(believer.messages) == len(witness.messages)
    for known, truth in zip(believer.messages, witness.messages, strict=True):
        assert known.get("uid", truth["uid"]) == truth["uid"]
        assert known.get("flags", truth["flags"]) == truth["flags"]
