"""Talking to the control socket."""

import json
import os
import pwd
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.cli.control import Answer, NotRunning, NotTrusted, ask
from mailserver.config.load import load
from mailserver.config.model import Config
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


def config_in(directory: Path, user: str = "root") -> Config:
    """A configuration whose runtime_dir is the directory itself."""
    site = Site(directory)
    site.user = user
    path = site.add("example.test", ["mail.example.test"]).write()
    path.write_text(path.read_text().replace('runtime_dir = "run"', f'runtime_dir = "{directory}"'))
    config, problems = load(path)
    assert config is not None, problems
    return config


def test_one_line_each_way(tmp_path: Path) -> None:
    with server(tmp_path, b'{"ok": false, "lines": ["mail.example.test: kept the last", "b"]}\n') as requests:
        assert ask(config_in(tmp_path), "reload") == Answer(ok=False, lines=("mail.example.test: kept the last", "b"))
    assert [json.loads(line) for line in requests] == [{"do": "reload"}]


@pytest.mark.parametrize("answer", [b"nonsense\n", b"[]\n", b'{"ok": 1, "lines": []}\n'])
def test_answers_that_are_none(tmp_path: Path, answer: bytes) -> None:
    with server(tmp_path, answer), pytest.raises(ValueError, match=r"answer|JSON|Expecting"):
        ask(config_in(tmp_path), "reload")


@pytest.mark.parametrize("answer", [b"", b'{"ok": true'])
def test_a_server_that_ends_before_it_has_answered_is_told_of_as_that(tmp_path: Path, answer: bytes) -> None:
    with server(tmp_path, answer), pytest.raises(ConnectionAbortedError, match=r"^the server ended before it answered"):
        ask(config_in(tmp_path), "cert-add")


def test_so_is_one_that_ends_before_it_has_read(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "control"))
    listening.listen()

    def serve() -> None:
        listening.accept()[0].close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(ConnectionAbortedError, match=r"^the server ended before it answered"):
            # More than the socket takes unread.
            ask(config_in(tmp_path), "cert-add", chain="x" * 10_000_000)
    finally:
        thread.join(20)
        listening.close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        ask(config_in(tmp_path), "reload")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "control"))
    stale.close()
    with pytest.raises(NotRunning):
        ask(config_in(tmp_path), "reload")


def test_who_may_not_ask_is_told_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_self: socket.socket, _path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(PermissionError, match=r"^only the service's user and root may ask the server at "):
        ask(config_in(tmp_path), "who")


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
    assert "--config, or MAILSERVER_CONFIG in the environment, names another file" in done.output


for_root = pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root becomes another user")


@contextmanager
def impostor(path: Path, user: str) -> Iterator[socket.socket]:
    """A server at a path, run by some user; the other end tells what it was sent, once it has been sent all."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        try:
            os.setuid(pwd.getpwnam(user).pw_uid)
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(path))
            listening.listen()
            theirs.sendall(b"listening")
            connection, _ = listening.accept()
            theirs.sendall(b"sent:" + connection.recv(1000))
            connection.sendall(b'{"ok": true, "lines": []}\n')
        finally:
            os._exit(0)
    theirs.close()
    try:
        ours.settimeout(20)
        assert ours.recv(9) == b"listening"
        yield ours
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        ours.close()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Not below pytest's own directory, which other users may not enter."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@for_root
def test_nothing_is_sent_to_a_process_of_another_user(open_directory: Path) -> None:
    open_directory.chmod(0o1777)  # anybody may make a socket there, and nobody may take another's away
    config = config_in(open_directory, user="mail")
    with impostor(open_directory / "control", "nobody") as heard:
        with pytest.raises(NotTrusted, match=r"the process that listens there runs as user nobody"):
            ask(config, "cert-add", key="a private key")
        assert heard.recv(1000) == b"sent:"


@for_root
def test_the_services_user_is_no_server_in_a_directory_of_roots(open_directory: Path) -> None:
    open_directory.chmod(0o1777)
    config = config_in(open_directory, user="mail")
    with impostor(open_directory / "control", "mail") as heard:
        with pytest.raises(NotTrusted, match=r"runs as user mail, and the server would run as root; if this is the"):
            ask(config, "cert-add", key="a private key")
        assert heard.recv(1000) == b"sent:"


@for_root
def test_the_services_user_is_the_server_in_its_own_directory(open_directory: Path) -> None:
    config = config_in(open_directory, user="mail")
    os.chown(open_directory, pwd.getpwnam("mail").pw_uid, 0)
    with impostor(open_directory / "control", "mail"):
        assert ask(config, "status") == Answer(ok=True, lines=())


@for_root
@pytest.mark.parametrize("where", ["run", "run/deeper"])
def test_nobody_is_asked_in_a_directory_that_others_can_replace(open_directory: Path, where: str) -> None:
    directory = open_directory / where
    directory.mkdir(parents=True)
    config = config_in(open_directory, user="mail")
    config = attrs.evolve(config, server=attrs.evolve(config.server, runtime_dir=directory))
    with server(directory, b'{"ok": true, "lines": []}\n') as requests:
        os.chown(open_directory / "run", pwd.getpwnam("nobody").pw_uid, 0)
        with pytest.raises(NotTrusted, match=rf"{open_directory}/run belongs to user nobody$"):
            ask(config, "cert-add", key="a private key")
        os.chown(open_directory / "run", 0, 0)
        (open_directory / "run").chmod(0o777)
        with pytest.raises(NotTrusted, match=rf"{open_directory}/run can be written by every user: chmod o-w$"):
            ask(config, "cert-add", key="a private key")
        assert requests == []
        (open_directory / "run").chmod(0o755)
        assert ask(config, "status").ok
