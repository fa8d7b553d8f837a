"""Transcripts (docs/transcripts.md): reading them, and the connections that they are run on. `transcript_run` runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen

from tests.refs import without_refs

FOLDER = Path(__file__).parent / "transcripts"
"""One folder a protocol."""
STATES = {
    "imap": ("auth", "nonauth", "selected"),
    "pop3": ("auth", "nonauth"),
    "submission": ("auth", "nonauth", "hello"),
    "lmtp": ("hello", "nonauth"),
}
"""By protocol, the usual one first."""
_REPLY = r"[2-5][0-9]{2}(?:,[2-5][0-9]{2})*"
_STATUS = {"imap": r"ok|no|bad", "pop3": r"ok|err", "submission": _REPLY, "lmtp": _REPLY}
QUOTA_SETTINGS = ("quota_storage", "quota_messages", "quota_mailboxes")
"""Settings that limit every account, in the order of types.Quota."""
KEYS = ("capabilities", "connections", "state", "messages", "settings")


class Malformed(Exception):
    """The transcript itself does not follow the dialect."""


class Mismatch(AssertionError):
    """The server answered otherwise."""


@frozen
class Header:
    """How the run begins."""

    capabilities: tuple[str, ...]
    state: str
    connections: int = 1
    messages: int = 0
    settings: Mapping[str, str] = field(factory=dict)


@frozen
class Text:
    """Octets of a command or pattern; literals are parts of their own."""

    parts: tuple[bytes, ...]
    """Text, literal, text, ..."""
    non_sync: bool = False


@frozen
class Step:
    """One line, and what must and must not follow it."""

    number: int
    connection: int
    kind: str
    """"command", "push", "C", "S", "S*", "wait", "closed", "hangup"."""
    text: Text = Text((b"",))
    status: str = ""
    code: bytes | None = None
    wanted: tuple[Text, ...] = ()
    unwanted: tuple[Text, ...] = ()


@frozen
class Transcript:
    """A whole file."""

    header: Header
    steps: tuple[Step, ...]
    protocol: str = "imap"


class Connection(Protocol):
    """One connection of the server under test, ready in the state that the header names."""

    def send(self, data: bytes) -> None:
        """Send; how it is cut is the connection's choice."""

    def receive(self, *, patient: bool) -> bytes:
        """What has come; empty when nothing more will come. `patient`: something is expected, wait for it."""

    def wait(self, seconds: float) -> None:
        """Let the server's clock pass."""

    def hang_up(self) -> None:
        """End it."""

    @property
    def closed(self) -> bool:
        """Has the server ended it?"""


# --- Reading


def names(protocol: str) -> list[str]:
    """The transcripts of a protocol."""
    return sorted(path.name for path in (FOLDER / protocol).iterdir())


def load(protocol: str, name: str) -> Transcript:
    """Read a file. Raises: Malformed."""
    return read((FOLDER / protocol / name).read_text(encoding="utf-8"), protocol)


def read(source: str, protocol: str = "imap") -> Transcript:
    """Raises: Malformed."""
    lines = source.split("\n")
    end = lines.index("") if "" in lines else len(lines)
    header = _header([line for line in lines[:end] if not line.startswith("#")], protocol)
    steps: list[Step] = []
    at = end
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if not line.strip() or line.startswith("#"):
            continue
        connection = 1
        if header.connections > 1:
            head, _, line = line.partition(" ")
            if not head.isdigit() or not 1 <= int(head) <= header.connections:
                raise Malformed(f"line {number}: expected a connection's number")
            connection = int(head)
        text, at = _text(line, lines, at)
        _add(steps, number, connection, text, _STATUS[protocol])
    if not steps:
        raise Malformed("nothing happens in it")
    return Transcript(header, tuple(steps), protocol)


def _header(lines: Sequence[str], protocol: str) -> Header:
    values: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon or key not in KEYS or key in values:
            raise Malformed(f"header: {line!r}")
        values[key] = value.strip()
    if not values.get("capabilities"):
        raise Malformed("header: no capabilities")
    states = STATES[protocol]
    state = values.get("state", states[0])
    if state not in states:
        raise Malformed(f"header: state {state!r}")
    pairs = [word.partition("=") for word in values.get("settings", "").split()]
    return Header(
        capabilities=tuple(values["capabilities"].split()),
        connections=int(values.get("connections", "1")),
        state=state,
        messages=int(values.get("messages", "0")),
        settings={key: value for key, _equals, value in pairs},
    )


def _text(line: str, lines: Sequence[str], at: int) -> tuple[Text, int]:
    parts: list[bytes] = []
    non_sync = False
    while line.endswith(("{{{", "{{{+")):
        non_sync = line.endswith("+")
        parts.append(line.removesuffix("+").removesuffix("{{{").encode())
        body = []
        while at < len(lines) and not lines[at].startswith("}}}"):
            body.append(lines[at])
            at += 1
        if at == len(lines):
            raise Malformed("a literal has no end")
        parts.append("".join(f"{each}\r\n" for each in body).encode())
        line = lines[at].removeprefix("}}}")
        at += 1
    return Text((*parts, line.encode()), non_sync), at


def _add(steps: list[Step], number: int, connection: int, text: Text, status: str) -> None:
    first = text.parts[0].decode()
    word, _, rest = first.partition(" ")
    rest_text = Text((rest.encode(), *text.parts[1:]), text.non_sync)
    if word in ("*", "!"):
        last = steps[-1] if steps else None
        if last is None or last.kind not in ("command", "push") or last.connection != connection:
            last = Step(number, connection, "push")
            steps.append(last)
        wanted, unwanted = last.wanted, last.unwanted
        if word == "*":
            wanted = (*wanted, rest_text)
        else:
            unwanted = (*unwanted, rest_text)
        steps[-1] = Step(last.number, connection, last.kind, last.text, last.status, last.code, wanted, unwanted)
    elif word in ("C:", "S:", "S:*"):
        steps.append(Step(number, connection, word.replace(":", ""), Text((_unescape(rest),))))
    elif re.fullmatch(status, word):
        code = re.match(r"\[([^\]]*)\] ", rest)
        if code:
            rest_text = Text((rest[code.end() :].encode(), *text.parts[1:]), text.non_sync)
        if not rest_text.parts[0]:
            raise Malformed(f"line {number}: no command")
        steps.append(Step(number, connection, "command", rest_text, word, code[1].encode() if code else None))
    elif word in ("closed", "hangup") and not rest:
        steps.append(Step(number, connection, word))
    elif word == "wait" and rest.isdigit():
        steps.append(Step(number, connection, word, rest_text))
    else:
        raise Malformed(f"line {number}: {first!r}")


def _unescape(text: str) -> bytes:
    pieces = re.split(r"\\x([0-9a-fA-F]{2})", text)
    return b"".join(bytes([int(piece, 16)]) if at % 2 else piece.encode() for at, piece in enumerate(pieces))


def message(number: int) -> bytes:
    """A message of those that lie in INBOX at the start."""
    return (
        f"From: sender{number}@example.test\r\nSubject: message {number}\r\nMessage-ID: <{number}@example.test>\r\n"
        f"Date: Mon, 0{number} Jan 2024 10:00:00 +0000\r\n\r\nbody of message {number}\r\n"
    ).encode()


# --- Running


@define
class Running:
    """A connection in a run."""

    connection: Connection
    protocol: str = "imap"
    buffer: bytes = b""
    tags: int = 0

    def more(self, *, patient: bool = True) -> bool:
        """Receive. Did anything come?"""
        data = self.connection.receive(patient=patient)
        # The id of a refused login differs each time.
        self.buffer = without_refs(self.buffer + data)
        return bool(data)

    def line(self) -> bytes:
        """The next line. Raises: Mismatch."""
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise Mismatch(f"nothing came, or no whole line: {self.buffer!r}")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line
