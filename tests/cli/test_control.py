"""Talking to the control socket."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailserver.cli.control import Answer, NotRunning, ask


@contextmanager
def server(directory: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A server that takes one request and answers with these bytes."""
    requests: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(directory / "control"))
    listening.listen()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            requests.append(connection.makefile("rb").readline())
            # In pieces, as a socket may.
            for start in range(0, len(answer), 7):
                connection.sendall(answer[start : start + 7])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield requests
    finally:
        thread.join(20)
        listening.close()


def test_one_line_each_way(tmp_path: Path) -> None:
    with server(tmp_path, b'{"ok": false, "lines": ["mail.example.test: kept the last", "b"]}\n') as requests:
        assert ask(tmp_path, "reload") == Answer(ok=False, lines=("mail.example.test: kept the last", "b"))
    assert [json.loads(line) for line in requests] == [{"do": "reload"}]


@pytest.mark.parametrize("answer", [b"", b'{"ok": true', b"nonsense\n", b"[]\n", b'{"ok": 1, "lines": []}\n'])
def test_answers_that_are_none(tmp_path: Path, answer: bytes) -> None:
    with server(tmp_path, answer), pytest.raises(ValueError, match=r"answer|JSON|Expecting"):
        ask(tmp_path, "reload")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        ask(tmp_path, "reload")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "control"))
    stale.close()
    with pytest.raises(NotRunning):
        ask(tmp_path, "reload")
