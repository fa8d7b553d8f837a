"""Reads and runs transcripts (docs/transcripts.md) against anything that offers connections."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen

from tests.transcript_match import Bindings, match, match_all, parse, split_responses

FOLDER = Path(__file__).parent / "transcripts"
STATES = ("nonauth", "auth", "selected")
KEYS = ("capabilities", "connections", "state", "messages", "settings")


class Malformed(Exception):
    """The transcript itself does not follow the dialect."""


class Mismatch(AssertionError):
    """The server answered otherwise."""


@frozen
class Header:
    """How the run begins."""

    capabilities: tuple[str, ...]
    connections: int = 1
    state: str = "auth"
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


def read(source: str) -> Transcript:
    """Raises: Malformed."""
    lines = source.split("\n")
    end = lines.index("") if "" in lines else len(lines)
    header = _header([line for line in lines[:end] if not line.startswith("#")])
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
        _add(steps, number, connection, text)
    if not steps:
        raise Malformed("nothing happens in it")
    return Transcript(header, tuple(steps))


def _header(lines: Sequence[str]) -> Header:
    values: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon or key not in KEYS or key in values:
            raise Malformed(f"header: {line!r}")
        values[key] = value.strip()
    if not values.get("capabilities"):
        raise Malformed("header: no capabilities")
    state = values.get("state", "auth")
    if state not in STATES:
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


def _add(steps: list[Step], number: int, connection: int, text: Text) -> None:
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
    elif word in ("ok", "no", "bad"):
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


# --- Running


@define
class _Running:
    connection: Connection
    buffer: bytes = b""
    tags: int = 0

    def more(self, *, patient: bool = True) -> bool:
        data = self.connection.receive(patient=patient)
        self.buffer += data
        return bool(data)


def run(transcript: Transcript, connections: Sequence[Connection]) -> None:
    """Raises: Mismatch at the first wrong answer."""
    running = [_Running(connection) for connection in connections]
    bound: Bindings = {}
    for step in transcript.steps:
        try:
            bound = _step(step, running[step.connection - 1], bound)
        except Mismatch as error:
            raise Mismatch(f"line {step.number}: {error}") from None
    for each in running:
        each.more(patient=False)
        if each.buffer and transcript.steps[-1].kind in ("C", "S", "S*"):
            raise Mismatch(f"left over at the end: {each.buffer!r}")


def _step(step: Step, running: _Running, bound: Bindings) -> Bindings:
    match step.kind:
        case "command":
            return _command(step, running, bound)
        case "push":
            return _push(step, running, bound)
        case "C":
            running.more(patient=False)
            if running.buffer:
                raise Mismatch(f"left over before it: {running.buffer!r}")
            running.connection.send(_substituted(step.text.parts[0], bound) + b"\r\n")
        case "S":
            line = _line(running)
            if line != _substituted(step.text.parts[0], bound):
                raise Mismatch(f"came {line!r}")
        case "S*":
            while not _line(running).startswith(_substituted(step.text.parts[0], bound)):
                pass
        case "wait":
            running.connection.wait(float(step.text.parts[0]))
        case "hangup":
            running.connection.hang_up()
        case "closed":
            running.more(patient=not running.connection.closed)
            if not running.connection.closed:
                raise Mismatch("the connection is open")
    return bound


def _line(running: _Running) -> bytes:
    while b"\r\n" not in running.buffer:
        if not running.more():
            raise Mismatch(f"nothing came, or no whole line: {running.buffer!r}")
    line, _, running.buffer = running.buffer.partition(b"\r\n")
    return line


def _command(step: Step, running: _Running, bound: Bindings) -> Bindings:
    running.tags += 1
    tag = b"t%d" % running.tags
    parts = [_substituted(part, bound) if at % 2 == 0 else part for at, part in enumerate(step.text.parts)]
    parts[0] = tag + b" " + parts[0]
    plus = b"+" if step.text.non_sync else b""
    pending = b""
    responses: list[bytes] = []
    for at in range(0, len(parts) - 1, 2):
        pending += parts[at] + b"{%d%b}\r\n" % (len(parts[at + 1]), plus)
        if not step.text.non_sync:
            running.connection.send(pending)
            pending = b""
            found = _until(running, (b"+ ", tag + b" "))
            responses += found
            if found[-1].startswith(tag):
                return _judge(step, found[-1][len(tag) + 1 :], responses[:-1], bound)
            responses.pop()
        pending += parts[at + 1]
    running.connection.send(pending + parts[-1] + b"\r\n")
    responses += _until(running, (tag + b" ",))
    return _judge(step, responses[-1][len(tag) + 1 :], responses[:-1], bound)


def _until(running: _Running, starts: tuple[bytes, ...]) -> list[bytes]:
    """Responses up to the first that begins so."""
    while True:
        responses, _rest = split_responses(running.buffer)
        for at, response in enumerate(responses):
            if response.startswith(starts):
                taken = responses[: at + 1]
                running.buffer = running.buffer[sum(len(each) + 2 for each in taken) :]
                return taken
        if not running.more():
            raise Mismatch(f"no answer; came {running.buffer!r}")


def _judge(step: Step, tagged: bytes, untagged: list[bytes], bound: Bindings) -> Bindings:
    answer = parse(tagged)
    if str(answer[0]).lower() != step.status:
        raise Mismatch(f"answered {tagged!r}")
    if step.code is not None:
        found = match(parse(b"%b [%b] x" % (step.status.encode(), step.code)), answer, bound)
        if found is None:
            raise Mismatch(f"expected [{step.code.decode()}], answered {tagged!r}")
        bound = found
    return _match(step, untagged, bound)


def _push(step: Step, running: _Running, bound: Bindings) -> Bindings:
    lines: list[bytes] = []
    patient = bool(step.wanted)
    while True:
        more = running.more(patient=patient)
        found, running.buffer = split_responses(running.buffer)
        lines += found
        if not more:
            return _match(step, lines, bound)
        with contextlib.suppress(Mismatch):
            _match(step, lines, bound)
            patient = False


def _match(step: Step, lines: list[bytes], bound: Bindings) -> Bindings:
    responses = []
    for line in lines:
        if not line.startswith(b"* "):
            raise Mismatch(f"neither tagged nor untagged: {line!r}")
        responses.append(parse(line[2:]))
    found = match_all([parse(_joined(text)) for text in step.wanted], responses, bound)
    if found is None:
        wanted = "\n  ".join(_joined(text).decode() for text in step.wanted)
        raise Mismatch(f"expected\n  {wanted}\ncame\n  " + "\n  ".join(map(repr, lines)))
    for text in step.unwanted:
        for line, response in zip(lines, responses, strict=True):
            if match(parse(_joined(text)), response, found) is not None:
                raise Mismatch(f"must not come: {line!r}")
    return found


def _joined(text: Text) -> bytes:
    pieces = list(text.parts[:1])
    for literal, after in zip(text.parts[1::2], text.parts[2::2], strict=True):
        pieces.append(b"{%d}\r\n%b%b" % (len(literal), literal, after))
    return b"".join(pieces)


def _substituted(data: bytes, bound: Bindings) -> bytes:
    def value(found: re.Match[bytes]) -> bytes:
        name = found[1].decode()
        if name not in bound:
            raise Mismatch(f"${name} is not bound")
        known = bound[name]
        return known if isinstance(known, bytes) else str(known).encode("latin-1")

    return re.sub(rb"\$([a-z][a-z0-9]*)", value, data)
