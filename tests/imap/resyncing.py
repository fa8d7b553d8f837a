"""A client that keeps a mailbox over its connections, as RFC 7162 5 has it: what it keeps is what it was told, and no more."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from mailserver.imap.services import Services
from tests.fakes import Client
from tests.imap.sessions import connect
from tests.transcript_match import parse, split_responses

_CODE = re.compile(rb"\* OK \[HIGHESTMODSEQ (\d+)\]|\w+ OK \[HIGHESTMODSEQ (\d+)\]")


def numbers_of(uids: str) -> list[int]:
    found: list[int] = []
    for part in str(uids).split(","):
        low, _, high = part.partition(":")
        found += range(int(low), int(high or low) + 1)
    return found


def set_of(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


class Resyncer:
    """Its cache of one mailbox, and its connection while there is one."""

    def __init__(self, service: Services, source: random.Random, *, mailbox: str = "INBOX") -> None:
        self.service = service
        self.source = source
        self.mailbox = mailbox
        self.client: Client | None = None
        self.validity = 0
        self.modseq = 0
        self.flags: dict[int, frozenset[str]] = {}
        """By UID, as of the last time that the client was told."""
        self.order: list[int | None] = []
        """UIDs by sequence number, None where the client has not asked yet."""
        self.silent: Callable[[frozenset[str]], frozenset[str]] | None = None
        """The change of the silent STORE that runs."""
        self.last_known = 0
        """The highest UID that it knew when it connected."""
        self.vanished_again = 0
        """UIDs reported as vanished that it had been told of before: the cost of a history that is lost."""

    # --- connections

    def connect(self) -> None:
        """Log in, and resynchronize, in one of the ways that clients have."""
        self.client = connect(self.service)
        self.client.send(b"l LOGIN anna@example.test secret\r\n")
        self.client.take()
        self.ask("ENABLE QRESYNC")
        assert self.client.session.enabled == {"CONDSTORE", "QRESYNC"}
        self.select()

    def disconnect(self) -> None:
        """The connection is lost: no more than what was told stays."""
        if self.client is not None:
            self.client.hang_up()
            self.client = None
            self.order = []

    def select(self) -> None:
        known, self.order = sorted(self.flags), []
        self.last_known = max(known, default=0)
        command = "SELECT" if self.source.random() < 0.8 else "EXAMINE"
        way = self.source.choice(("plain", "all", "all", "known", "pairs", "fetch")) if self.modseq else "plain"
        validity, before = self.validity, self.modseq
        if way in ("plain", "fetch") or not known:
            answer = self.ask(f"{command} {self.mailbox} (CONDSTORE)", opens=True)
        else:
            more = ""
            if way != "all":
                more = f" {set_of(known)}" if self.source.random() < 0.5 else f" 1:{known[-1]}"
            if way == "pairs":
                sample = sorted(self.source.sample(range(len(known)), min(3, len(known))))
                more += f" ({set_of([at + 1 for at in sample])} {set_of([known[at] for at in sample])})"
            answer = self.ask(f"{command} {self.mailbox} (QRESYNC ({validity} {before}{more}))", opens=True)
        assert re.search(r"OK \[(READ-WRITE|READ-ONLY)\]", answer), answer
        if self.validity != validity or way == "plain" or not known:
            self.flags = {}
            self.learn("1:*")
        elif way == "fetch":
            # The client goes back to what it knew: the answer of SELECT has told nothing yet.
            highest, self.modseq = self.modseq, before
            self.ask(f"UID FETCH 1:{known[-1]} (FLAGS) (CHANGEDSINCE {before} VANISHED)")
            self.learn(f"{known[-1] + 1}:*")
            self.modseq = max(self.modseq, highest)
        else:
            self.learn(f"{known[-1] + 1}:*")

    def learn(self, uids: str) -> None:
        """Ask for the flags of new messages, those that are in the mailbox."""
        if self.order:
            self.ask(f"UID FETCH {uids} (FLAGS)")

    # --- commands

    def ask(self, command: str, *, opens: bool = False) -> str:
        assert self.client is not None
        return self.hear(self.client.ask(f"t {command}\r\n".encode()), opens=opens)

    def hear(self, data: bytes, *, opens: bool = False) -> str:
        responses, rest = split_responses(data)
        assert not rest
        told: int | None = None
        seen = 0
        for response in responses:
            code = _CODE.match(response)
            if code is not None:
                told = int(code[1] or code[2])
            if response.startswith(b"* "):
                seen = max(seen, self._take(parse(response[2:])))
        # RFC 7162 5: the code, "even if it has seen higher mod-sequences"; else the highest one seen.
        if told is not None:
            self.modseq = told if opens else max(told, 0)
        elif seen > self.modseq:
            self.modseq = seen
        return responses[-1].decode() if responses else ""

    def _take(self, response: list[Any]) -> int:
        words: list[Any] = [str(word).upper() if not isinstance(word, list) else word for word in response]
        match words:
            case ["OK", [*code], *_] if code and str(code[0]).upper() == "UIDVALIDITY":
                self.validity = int(code[1])
            case [number, "EXISTS"]:
                assert int(number) >= len(self.order)
                self.order += [None] * (int(number) - len(self.order))
            case [_, "EXPUNGE"]:
                raise AssertionError("EXPUNGE, although QRESYNC is on")
            case ["VANISHED", uids]:
                for uid in numbers_of(uids):
                    # RFC 7162 3.2.10.2: only messages that the client was told of; it may not know their UIDs yet.
                    del self.order[self.order.index(uid) if uid in self.order else self._unknown(uid)]
                    self.flags.pop(uid, None)
            case ["VANISHED", [earlier], uids]:
                assert str(earlier).upper() == "EARLIER"
                for uid in numbers_of(uids):
                    assert uid not in self.order
                    self.vanished_again += self.flags.pop(uid, None) is None and uid <= self.last_known
            case [number, "FETCH", [*pairs]]:
                values = dict(zip([str(name).upper() for name in pairs[::2]], pairs[1::2], strict=True))
                at = int(number) - 1
                told = int(values["UID"]) if "UID" in values else self.order[at]
                assert self.order[at] in (None, told), "a sequence number has moved"
                self.order[at] = told
                if told is None:
                    assert "FLAGS" not in values
                elif "FLAGS" in values:
                    self.flags[told] = frozenset(str(flag).lower() for flag in values["FLAGS"]) - {"\\recent"}
                elif self.silent is not None and "MODSEQ" in values:
                    # RFC 3501 6.4.6: the client knows what its own silent STORE makes of them.
                    self.flags[told] = self.silent(self.flags.get(told, frozenset()))
                if "MODSEQ" in values:
                    return int(values["MODSEQ"][0])
        return 0

    def _unknown(self, uid: int) -> int:
        """A message that may have this UID, as UIDs rise."""
        for at, known in enumerate(self.order):
            before, after = self.order[:at], self.order[at + 1 :]
            if known is None and max(each or 0 for each in (0, *before)) < uid < min(
                each or uid + 1 for each in (0, *after)
            ):
                return at
        raise AssertionError(f"{uid} has vanished, and was never there")

    def store_silently(self, numbers: list[int], how: str, flag: str, modifier: str = "") -> str:
        """A silent STORE of these message numbers."""
        changes = {
            "+": lambda old: old | {flag.lower()},
            "-": lambda old: old - {flag.lower()},
            "": lambda _old: frozenset({flag.lower()}),
        }
        self.silent = changes[how]
        try:
            return self.ask(f"STORE {set_of(numbers)} {modifier}{how}FLAGS.SILENT ({flag})")
        finally:
            self.silent = None

    def settle(self) -> None:
        """Take up all that is new, as a client does that has time."""
        self.ask("NOOP")
        if None in self.order:
            self.ask("UID FETCH 1:* (FLAGS)")
