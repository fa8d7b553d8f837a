"""One IMAP client of the stress: it believes what it is told, and fails the test where two answers contradict each other."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from attrs import define, field

from tests.stress.truth import FLAGS, Truth
from tests.transcript_match import parse, split_responses

HANG_TIME = 120.0
"""Seconds after which an answer is taken for lost."""


class Contradiction(AssertionError):
    """The server said what cannot be."""


@define
class Message:
    """What the client has been told of one message."""

    uid: int = 0
    """0: not yet."""
    flags: frozenset[str] | None = None


@define
class Answer:
    """The untagged responses of one command, parsed, and how it ended."""

    status: str
    text: str
    untagged: list[list[Any]]

    @property
    def ok(self) -> bool:
        return self.status == "OK"

    @property
    def expunge_issued(self) -> bool:
        return self.text.startswith("[EXPUNGEISSUED]")


@define(eq=False)
class Believer:
    """A connection. The checks are those of RFC 3501 2.3, 7.2 to 7.4, and of `Truth`, which all clients share."""

    number: int
    truth: Truth
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    messages: list[Message] = field(factory=list)
    keywords: set[str] = field(factory=set)
    selected: int = 0
    """The serial number of the selected session, 0 if no mailbox is."""
    leaving: bool = False
    """LOGOUT has been sent."""
    _tag: int = 0
    _buffer: bytes = b""
    _pending: dict[int, frozenset[str]] = field(factory=dict)
    """Own flags that a command is changing, by UID: before and after are both right meanwhile."""

    @classmethod
    async def connect(cls, number: int, truth: Truth) -> Believer:
        reader, writer = await asyncio.open_connection("127.0.0.1", truth.port, limit=1 << 24)
        client = cls(number, truth, reader, writer)
        await client._line(b"* OK")
        await client.ask(f"LOGIN {truth.user} {truth.password}")
        return client

    async def close(self) -> None:
        self.writer.close()
        await asyncio.wait_for(self.writer.wait_closed(), HANG_TIME)

    # --- talking

    async def ask(self, command: str, *, literal: bytes | None = None, no_is_right: bool = False) -> Answer:
        """A command, whose answer must be OK."""
        self._tag += 1
        tag = f"{self.number}.{self._tag}"
        data = f"{tag} {command}".encode()
        if literal is not None:
            data += b" {%d+}\r\n%b" % (len(literal), literal)
        self.writer.write(data + b"\r\n")
        word = command.split(maxsplit=1)[0]
        answer = await self._answer(tag.encode(), expunges=word not in ("FETCH", "STORE", "SEARCH"), command=command)
        if not answer.ok and not no_is_right:
            raise Contradiction(f"{command}: {answer.status} {answer.text}")
        return answer

    async def idle(self, seconds: float) -> None:
        self._tag += 1
        tag = b"%d.%d" % (self.number, self._tag)
        self.writer.write(tag + b" IDLE\r\n")
        await self._line(b"+")
        await asyncio.sleep(seconds)
        self.writer.write(b"DONE\r\n")
        answer = await self._answer(tag, expunges=True, command="IDLE")
        if not answer.ok:
            raise Contradiction(f"IDLE: {answer.status} {answer.text}")

    async def _line(self, start: bytes) -> None:
        """Wait for that line; what comes before it is taken up."""
        while True:
            for response in await self._responses(start):
                if response.startswith(start):
                    return
                self._take(response, expunges=True, command="")

    async def _answer(self, tag: bytes, *, expunges: bool, command: str) -> Answer:
        untagged: list[list[Any]] = []
        while True:
            for response in await self._responses(tag + b" "):
                if response.startswith(tag + b" "):
                    words = response.decode("latin-1").split(" ", 2)
                    if self._buffer:
                        raise Contradiction(f"{command}: something follows its answer: {self._buffer[:200]!r}")
                    return Answer(words[1], words[2], untagged)
                untagged.append(self._take(response, expunges=expunges, command=command))

    async def _responses(self, last: bytes) -> list[bytes]:
        """Whole responses, up to the one that begins so."""
        while True:
            found, self._buffer = split_responses(self._buffer)
            for at, response in enumerate(found):
                if response.startswith(last):
                    rest = b"".join(each + b"\r\n" for each in found[at + 1 :])
                    self._buffer = rest + self._buffer
                    return found[: at + 1]
            if found:
                return found
            data = await asyncio.wait_for(self.reader.read(1 << 18), HANG_TIME)
            if not data:
                raise Contradiction("the server ended the connection")
            self._buffer += data

    # --- believing

    def _take(self, response: bytes, *, expunges: bool, command: str) -> list[Any]:
        try:
            return self._take_up(response, expunges=expunges)
        except Contradiction as error:
            raise Contradiction(f"{error}\nin {response!r}\nof {command}") from None

    def _take_up(self, response: bytes, *, expunges: bool) -> list[Any]:
        if not response.startswith(b"* "):
            raise Contradiction("neither tagged nor untagged")
        values: list[Any] = parse(response[2:])
        if values[0].upper() == "BYE" and not self.leaving:
            raise Contradiction("BYE")
        if values[0].upper() == "FLAGS":
            self.keywords = {name.lower() for name in values[1]}
        if len(values) < 2 or not isinstance(values[0], str) or not values[0].isdigit():
            return values
        number, kind = int(values[0]), str(values[1]).upper()
        if kind == "EXISTS":
            if number < len(self.messages):
                raise Contradiction(f"EXISTS shrinks a mailbox of {len(self.messages)}")
            self.messages += [Message() for _ in range(number - len(self.messages))]
        elif kind == "EXPUNGE":
            self._expunge(number, allowed=expunges)
        elif kind == "FETCH":
            self._fetch(number, values[2])
        return values

    def _expunge(self, number: int, *, allowed: bool) -> None:
        if not allowed:
            raise Contradiction("RFC 3501 7.4.1: no EXPUNGE here")
        if not 1 <= number <= len(self.messages):
            raise Contradiction(f"no message has that number, there are {len(self.messages)}")
        gone = self.messages.pop(number - 1)
        if gone.uid and gone.uid not in self.truth.deleted:
            raise Contradiction(f"UID {gone.uid} is expunged, and nobody has flagged it \\Deleted")

    def _fetch(self, number: int, items: list[Any]) -> None:
        if not 1 <= number <= len(self.messages):
            raise Contradiction(f"no message has that number, there are {len(self.messages)}")
        known = self.messages[number - 1]
        told = dict(zip((str(name).upper() for name in items[::2]), items[1::2], strict=True))
        if "UID" in told:
            self._learn_uid(number, known, int(told["UID"]))
        if "FLAGS" in told:
            self._learn_flags(known, frozenset(flag.lower() for flag in told["FLAGS"]))
        for name, value in told.items():
            if name == "BODY[]" and known.uid and value != self.truth.contents.get(known.uid, value):
                raise Contradiction(f"UID {known.uid} has other octets than were appended")
            if name == "RFC822.SIZE" and int(value) != len(self.truth.contents.get(known.uid, b"x" * int(value))):
                raise Contradiction(f"UID {known.uid} has another size")

    def _learn_uid(self, number: int, known: Message, uid: int) -> None:
        if known.uid not in (0, uid):
            raise Contradiction(f"message {number} had UID {known.uid}")
        known.uid = uid
        before = max((message.uid for message in self.messages[: number - 1]), default=0)
        after = min((message.uid for message in self.messages[number:] if message.uid), default=uid + 1)
        if not before < uid < after:
            raise Contradiction("UIDs do not rise")

    def _learn_flags(self, known: Message, flags: frozenset[str]) -> None:
        known.flags = flags
        if unknown := {flag for flag in flags if not flag.startswith("\\")} - self.keywords:
            raise Contradiction(f"FLAGS has not named {unknown}")
        if not known.uid:
            return
        if "\\recent" in flags:
            first = self.truth.recent.setdefault(known.uid, self.selected)
            if first != self.selected:
                raise Contradiction(f"UID {known.uid} is \\Recent in sessions {first} and {self.selected}")
        for flag in FLAGS:
            if flag in self._pending.get(known.uid, ()) or not self.truth.owns(self.number, known.uid, flag):
                continue
            expected = self.truth.flags.get((known.uid, flag), False)
            if (flag in flags) != expected:
                raise Contradiction(f"UID {known.uid}: {flag} is mine, and {'gone' if expected else 'set'} by another")

    # --- changing own flags

    def begin(self, uids: list[int], flags: list[str]) -> None:
        """A STORE of own flags begins."""
        for uid in uids:
            self._pending[uid] = frozenset(flags)

    def end(self, uids: list[int], flags: list[str], *, value: bool) -> None:
        """It is done."""
        for uid in uids:
            self._pending.pop(uid, None)
            for flag in flags:
                self.truth.flags[uid, flag] = value

    def numbers(self, uids: list[int]) -> list[int]:
        where = {message.uid: at for at, message in enumerate(self.messages, 1)}
        return [where[uid] for uid in uids if uid in where]


def appended_uid(answer: Answer) -> int:
    """RFC 4315 3."""
    match = re.match(r"\[APPENDUID \d+ (\d+)\]", answer.text)
    if match is None:
        raise Contradiction(f"no APPENDUID: {answer.text}")
    return int(match[1])
