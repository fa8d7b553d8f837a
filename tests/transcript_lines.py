"""Commands of transcripts of POP3 and SMTP: how they are sent, and how their answers are compared."""

from __future__ import annotations

import re

from mailserver.session.lines import dot_stuffed
from tests.transcript import Mismatch, Running, Step
from tests.transcript_match import Bindings, match_lines, substituted

_POP3_LISTS = re.compile(rb"(?:CAPA|LIST|UIDL|RETR \S+|TOP \S+ \S+)", re.IGNORECASE)
"""The POP3 commands whose positive answer has many lines."""


def pop3_command(step: Step, running: Running, bound: Bindings) -> Bindings:
    """Send a command and compare the answer. Raises: Mismatch."""
    command = substituted(step.text.parts[0], bound)
    running.connection.send(command + b"\r\n")
    first = running.line()
    status, _, text = first.partition(b" ")
    if status != {"ok": b"+OK", "err": b"-ERR"}[step.status]:
        raise Mismatch(f"answered {first!r}")
    if step.code is not None and not text.upper().startswith(b"[%b]" % step.code.upper()):
        raise Mismatch(f"expected [{step.code.decode()}], answered {first!r}")
    lines = [text]
    if status == b"+OK" and _POP3_LISTS.fullmatch(command):
        lines = []
        while (line := running.line()) != b".":
            lines.append(line.removeprefix(b"."))
    return _compare(step, lines, bound)


def smtp_command(step: Step, running: Running, bound: Bindings) -> Bindings:
    """Send a command, with its literal as the data of DATA or BDAT, and compare the replies. Raises: Mismatch."""
    command, *literal = (substituted(part, bound) if at % 2 == 0 else part for at, part in enumerate(step.text.parts))
    codes = [int(code) for code in step.status.split(",")]
    if not literal:
        running.connection.send(command + b"\r\n")
    elif command.upper().startswith(b"BDAT"):
        data, rest = literal
        running.connection.send(b"%b %d%b\r\n%b" % (command.rstrip(), len(data), rest, data))
    else:
        running.connection.send(command.rstrip() + b"\r\n")
        code, _, lines = _reply(running)
        if code == 354:
            running.connection.send(dot_stuffed(literal[0]))
        elif [code] == codes:
            return _compare(step, lines, bound)
        else:
            raise Mismatch(f"answered {code} {lines}")
    replies = [_reply(running) for _code in codes]
    if [code for code, _, _ in replies] != codes:
        raise Mismatch(f"answered {replies}")
    if step.code is not None and replies[0][1] != step.code:
        raise Mismatch(f"expected {step.code.decode()}, answered {replies}")
    return _compare(step, [line for _, _, lines in replies for line in lines], bound)


def _reply(running: Running) -> tuple[int, bytes, list[bytes]]:
    """The code, the enhanced code of the first line, the texts."""
    lines = []
    enhanced = b""
    while True:
        found = re.fullmatch(rb"([2-5][0-9]{2})([ -])(?:([245]\.[0-9]{1,3}\.[0-9]{1,3}) )?(.*)", line := running.line())
        if found is None:
            raise Mismatch(f"no reply: {line!r}")
        enhanced = enhanced or found[3] or b""
        lines.append(found[4])
        if found[2] == b" ":
            return int(found[1]), enhanced, lines


def _compare(step: Step, lines: list[bytes], bound: Bindings) -> Bindings:
    words = []
    for text in step.wanted:
        if len(text.parts) == 1:
            words.append(text.parts[0])
        elif text.parts[1] != b"".join(line + b"\r\n" for line in lines):
            raise Mismatch(f"came {lines}")
    found = match_lines(words, lines, bound)
    if found is None:
        raise Mismatch(f"expected {words}, came {lines}")
    for text in step.unwanted:
        if match_lines([text.parts[0]], lines, found) is not None:
            raise Mismatch(f"must not come: {text.parts[0]!r} in {lines}")
    return found
