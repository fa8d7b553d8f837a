"""Talking to the control socket."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.cli.control import Answer, NotRunning, ask
from tests.tls.site import Site


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


@pytest.mark.parametrize("answer", [b"nonsense\n", b"[]\n", b'{"ok": 1, "lines": []}\n'])
def test_answers_that_are_none(tmp_path: Path, answer: bytes) -> None:
    with server(tmp_path, answer), pytest.raises(ValueError, match=r"answer|JSON|Expecting"):
        ask(tmp_path, "reload")


@pytest.mark.parametrize("answer", [b"", b'{"ok": true'])
def test_a_server_that_ends_before_it_has_answered_is_told_of_as_that(tmp_path: Path, answer: bytes) -> None:
    with server(tmp_path, answer), pytest.raises(ConnectionAbortedError, match=r"^the server ended before it had"):
        ask(tmp_path, "cert-add")


def test_so_is_one_that_ends_before_it_has_read(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "control"))
    listening.listen()

    def serve() -> None:
        listening.accept()[0].close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(ConnectionAbortedError, match=r"^the server ended before it had"):
            # More than the socket takes unread.
            ask(tmp_path, "cert-add", chain="x" * 10_000_000)
    finally:
        thread.join(20)
        listening.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        ask(tmp_path, "reload")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "control"))
    stale.close()
    with pytest.raises(NotRunning):
        ask(tmp_path, "reload")


def test_who_may_not_ask_is_told_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_self: socket.socket, _path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(PermissionError, match=r"^only the service's user and root may ask the server at "):
        ask(tmp_path, "who")


def test_a_server_is_asked_though_its_file_is_spoilt(tmp_path: Path) -> None:
    path = Site(tmp_path).add("example.test", ["mail.example.test"]).write()
    sound = path.read_text()
    command = ["who", "--json", "--config", str(path)]
    path.write_text(sound + '\n[imap]\nliteral = "pluss"\n')
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert "did you mean 'plus'?" in done.output, "where no server runs the file is the first thing to mend"
    runtime_dir = tmp_path / "run"
    runtime_dir.mkdir(exist_ok=True)
    with server(runtime_dir, b'{"ok": true, "lines": [], "data": []}\n') as requests:
        done = CliRunner().invoke(main, command)
    assert (done.exit_code, done.stdout) == (0, "[]\n")
    assert done.stderr.startswith("warning: the configuration has errors")
    assert len(requests) == 1
    path.write_text(sound.replace("[server]", "[server]\nruntime_dri = 5"))
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert "did you mean 'runtime_dir'?" in done.output, "another server might be asked"


def test_where_there_is_no_file_it_says_how_to_name_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["status", "--config", str(tmp_path / "none.toml")])
    assert done.exit_code == 1
    assert "--config names another file, and so does MAILSERVER_CONFIG" in done.output
