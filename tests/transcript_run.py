"""Runs transcripts (docs/transcripts.md); those of line protocols by `transcript_lines`."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence

from tests.transcript import Connection, Mismatch, Running, Step, Text, Transcript
from tests.transcript_lines import pop3_command, smtp_command
from tests.transcript_match import Bindings, match, match_all, parse, split_responses, substituted


class DeflatedConnection:
    """A connection on which COMPRESS is active (RFC 4978)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def send(self, data: bytes) -> None:
        self._connection.send(self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH))

    def receive(self, *, patient: bool) -> bytes:
        data = b""
        while not data and (received := self._connection.receive(patient=patient)):
            data = self._inflater.decompress(received)
        return data

    def wait(self, seconds: float) -> None:
        self._connection.wait(seconds)

    def hang_up(self) -> None:
        self._connection.hang_up()

    @property
    def closed(self) -> bool:
        return self._connection.closed


def run(transcript: Transcript, connections: Sequence[Connection]) -> None:
    """Raises: Mismatch at the first wrong answer."""
    running = [Running(connection, transcript.protocol) for connection in connections]
    bound: Bindings = {}
    for step in transcript.steps:
        try:
            bound = run_step(step, running[step.connection - 1], bound)
        except Mismatch as error:
            raise Mismatch(f"line {step.number}: {error}") from None
    for each in running:
        each.more(patient=False)
        if each.buffer and transcript.steps[-1].kind in ("C", "S", "S*"):
            raise Mismatch(f"left over at the end: {each.buffer!r}")


def run_step(step: Step, running: Running, bound: Bindings) -> Bindings:
    """Raises: Mismatch."""
    match step.kind:
        case "command":
            return COMMANDS[running.protocol](step, running, bound)
        case "push":
            return _push(step, running, bound)
        case "C":
            running.more(patient=False)
            if running.buffer:
                raise Mismatch(f"left over before it: {running.buffer!r}")
            running.connection.send(substituted(step.text.parts[0], bound) + b"\r\n")
        case "S":
            line = running.line()
            if line != substituted(step.text.parts[0], bound):
                raise Mismatch(f"came {line!r}")
        case "S*":
            while not running.line().startswith(substituted(step.text.parts[0], bound)):
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


def _command(step: Step, running: Running, bound: Bindings) -> Bindings:
    running.tags += 1
    tag = b"t%d" % running.tags
    parts = [substituted(part, bound) if at % 2 == 0 else part for at, part in enumerate(step.text.parts)]
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
    if parts[0].upper() == tag.upper() + b" COMPRESS DEFLATE" and responses[-1].startswith(tag + b" OK "):
        running.connection = DeflatedConnection(running.connection)
    return _judge(step, responses[-1][len(tag) + 1 :], responses[:-1], bound)


def _until(running: Running, starts: tuple[bytes, ...]) -> list[bytes]:
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


def _push(step: Step, running: Running, bound: Bindings) -> Bindings:
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


COMMANDS = {"imap": _command, "pop3": pop3_command, "submission": smtp_command, "lmtp": smtp_command}
