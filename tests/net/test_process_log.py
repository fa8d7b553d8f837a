"""The log on standard output: nobody waits for who reads it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest
from twisted.logger import LogLevel

from mailserver.net.log import process_log
from mailserver.net.log.process_log import ProcessLog

Ends = tuple[int, Callable[[], bytes]]


def _pipe() -> Ends:
    reading, writing = os.pipe()
    return writing, lambda: os.read(reading, 1 << 20)


def _socket() -> Ends:
    ours, theirs = socket.socketpair()
    return theirs.detach(), lambda: ours.recv(1 << 20)


@pytest.fixture(params=[_pipe, _socket])
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    writing, read = request.param()
    monkeypatch.setattr(process_log, "_STANDARD_OUTPUT", writing)
    yield writing, read
    os.close(writing)


def say(lines: ProcessLog, text: str) -> None:
    lines({"log_format": "{line}", "line": text, "log_time": 0.0, "log_level": LogLevel.info, "log_namespace": "m"})


def test_what_nobody_reads_is_left_out_and_counted(output: Ends) -> None:
    writing, read = output
    lines = ProcessLog("1", relayed=False)
    assert os.get_blocking(writing), "others have this opening, too"
    for number in range(5000):
        say(lines, f"line {number} " + "x" * 200)
    text = read()
    while text.endswith(b"\n") is False or b"line 0 " not in text:
        text += read()
    heard = text.count(b"\n")
    assert heard < 5000
    # Room again: the next line says how many are missing.
    say(lines, "after")
    more = read()
    while b"after" not in more:
        heard += more.count(b"\n")
        more = read()
    told = [line for line in more.decode().splitlines() if "found no room" in line]
    heard += more.count(b"\n") - 2
    assert [line.partition("] ")[2] for line in told] == [
        f"{5000 - heard} lines of the log found no room event=log-lines-lost"
    ]


def test_a_line_that_was_cut_ends_before_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    writing, read = _pipe()
    monkeypatch.setattr(process_log, "_STANDARD_OUTPUT", writing)
    lines = ProcessLog("1", relayed=False)
    say(lines, "x" * 200_000)  # a traceback, say
    cut = read()
    assert 0 < len(cut) < 200_000
    say(lines, "after")
    told = read().decode()
    assert told.startswith("\n")
    assert [line.partition("] ")[2] for line in told.splitlines()] == [
        "",
        "1 lines of the log found no room event=log-lines-lost",
        "after",
    ]
    say(lines, "as ever")
    assert read().decode().count("\n") == 1
    os.close(writing)


def test_chatter_is_left_out_and_a_name_stands_behind_the_level(output: Ends) -> None:
    _writing, read = output
    lines = ProcessLog("3", relayed=False)
    lines({"log_format": "x starting on 1", "log_system": "-", "log_time": 0.0})
    say(lines, "said")
    assert read().decode().rstrip().endswith("[m#info 3] said")
