"""Whether the service may write where it is sent, asked of modes and owners."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from mailserver.config.directories import Identity, check_directories, service_identity
from mailserver.config.load import load
from mailserver.config.model import Config
from tests.config.test_load import SOUND


def config_in(directory: Path, **replace: str) -> Config:
    text = SOUND.replace(b"/var/mail/domains", b"mail/domains").replace(b"[mail]", b'runtime_dir = "run"\n[mail]')
    for old, new in replace.items():
        text = text.replace(old.encode(), new.encode())
    (directory / "a.toml").write_bytes(text + b'[[listener]]\nprotocol = "lmtp"\nsocket = "run/lmtp"\n')
    config, problems = load(directory / "a.toml")
    assert problems == []
    assert config is not None
    return config


def test_what_can_be_made_is_no_problem_and_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    assert check_directories(config_in(tmp_path)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.toml", "log"]
    assert list((tmp_path / "log").iterdir()) == []


def test_files_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "mail").touch()
    (tmp_path / "run").touch()
    (tmp_path / "log").mkdir()
    config = config_in(tmp_path)
    told = [str(problem).replace(str(tmp_path), "DIR") for problem in check_directories(config)]
    assert told == [
        'DIR/a.toml [server] runtime_dir = "DIR/run": must be a directory',
        # stat() itself says it: a component of the path is not a directory.
        'DIR/a.toml [mail] root = "DIR/mail/domains": cannot be used: Not a directory',
        'DIR/a.toml [listener 4] socket = "DIR/run": must be a directory',
    ]


@pytest.fixture
def runnable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that everybody can run, wherever that of the tests is."""
    program = shutil.which("true")
    assert program is not None
    monkeypatch.setattr(sys, "executable", program)


@pytest.mark.parametrize(
    ("identity", "mode", "wanted", "expected"),
    [
        (Identity(1, frozenset({2})), 0o700, os.W_OK | os.X_OK, True),
        (Identity(1, frozenset({2})), 0o500, os.W_OK | os.X_OK, False),
        # The owner's bits count for the owner, though the group's would allow it.
        (Identity(1, frozenset({2})), 0o070, os.R_OK, False),
        (Identity(9, frozenset({2, 3})), 0o070, os.W_OK | os.X_OK, True),
        (Identity(9, frozenset({2, 3})), 0o707, os.R_OK, False),
        (Identity(9, frozenset({3})), 0o707, os.R_OK, True),
        (Identity(9, frozenset({3})), 0o770, os.R_OK, False),
        (Identity(0, frozenset()), 0o000, os.R_OK, True),
    ],
)
def test_rights(identity: Identity, mode: int, wanted: int, expected: bool) -> None:
    status = os.stat_result((0o40000 | mode, 0, 0, 1, 1, 2, 0, 0, 0, 0))
    assert identity.may(status, wanted) is expected


@pytest.mark.usefixtures("runnable")
def test_the_configured_user_counts_not_the_caller(tmp_path: Path) -> None:
    other = next(name for name in ("nobody", "daemon") if pwd.getpwnam(name).pw_uid != os.geteuid())
    config = config_in(tmp_path, **{'user = "root"': f'user = "{other}"\nworkers = 0'})
    tmp_path.chmod(0o755)
    assert service_identity(config).uid != os.geteuid()
    (tmp_path / "run").mkdir(mode=0o700)
    told = check_directories(config)
    assert [problem.place for problem in told] == [
        "[server] runtime_dir",
        "[mail] root",
        "[listener 4] socket",
        "[server] log_file",
    ]
    assert told[0].reason == f"cannot be written by user {other}"
    assert f"does not exist, and user {other} cannot make it in" in told[1].reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes it for another user")
def test_a_runtime_dir_that_the_start_makes_or_is_given_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_in(tmp_path, **{'user = "root"': 'user = "nobody"\nworkers = 0'})
    tmp_path.chmod(0o755)

    def places() -> list[str]:
        return [problem.place for problem in check_directories(config)]

    assert "[server] runtime_dir" not in places()
    (tmp_path / "run").mkdir(mode=0o700)
    assert "[server] runtime_dir" in places()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"/run/other:{tmp_path / 'run'}")
    assert "[server] runtime_dir" not in places()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root stays root")
def test_with_a_root_master_the_runtime_dir_is_to_be_roots() -> None:
    """Whoever may write there could put another control socket in the place of root's."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made).resolve()
        config = config_in(directory, **{'user = "root"': 'user = "nobody"'})
        run = directory / "run"
        run.mkdir(mode=0o700)
        assert "[server] runtime_dir" not in [problem.place for problem in check_directories(config)]
        os.chown(run, pwd.getpwnam("nobody").pw_uid, 0)
        (told,) = [problem for problem in check_directories(config) if problem.place == "[server] runtime_dir"]
        assert told.warning
        reason = f"lets other users replace the control socket: {run} belongs to user nobody"
        assert told.reason == f"{reason}; the next start makes it root's"
        (run / "note").touch()
        (told,) = [problem for problem in check_directories(config) if problem.place == "[server] runtime_dir"]
        assert told.reason == reason


def test_a_state_dir_that_cannot_be_is_a_warning(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    config = attrs.evolve(config, server=attrs.evolve(config.server, state_dir=tmp_path / "state"))
    assert "[server] state_dir" not in [problem.place for problem in check_directories(config)]
    (tmp_path / "state").write_text("")
    (problem,) = [problem for problem in check_directories(config) if problem.place == "[server] state_dir"]
    assert problem.warning
    assert problem.reason == "must be a directory; certificates are not stored, and none can be added"


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A link, as an environment has one, to a program in directories that all may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made).resolve()
        root.chmod(0o755)
        program = root / "versions" / "python"
        program.parent.mkdir()
        program.touch()
        program.chmod(0o755)
        (root / "bin").mkdir()
        link = root / "bin" / "python"
        link.symlink_to(program)
        monkeypatch.setattr(sys, "executable", str(link))
        yield root


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize(
    ("closed", "mode", "words"),
    [("bin", 0o700, "enter"), ("versions", 0o744, "enter"), ("versions/python", 0o744, "execute")],
)
def test_an_interpreter_that_the_user_cannot_run(
    tmp_path: Path, interpreter: Path, closed: str, mode: int, words: str
) -> None:
    config = config_in(tmp_path, **{'user = "root"': 'user = "nobody"'})

    def told() -> list[str]:
        return [str(problem) for problem in check_directories(config) if problem.place == "[server] user"]

    assert told() == []
    (interpreter / closed).chmod(mode)
    expected = (
        f'{config.source} [server] user = "nobody": cannot run the Python of this server, {interpreter}/bin/python:'
        f" it may not {words} {interpreter / closed}"
    )
    assert told() == [expected]
    assert not [problem for problem in check_directories(config_in(tmp_path)) if problem.place == "[server] user"]


def log_file_problems(config: Config) -> list[str]:
    directory = str(config.source.parent)
    told = [problem for problem in check_directories(config) if problem.place == "[server] log_file"]
    return [str(problem).replace(directory, "DIR") for problem in told]


def test_the_log_file_needs_its_directory(tmp_path: Path) -> None:
    """The start makes the file and no directory."""
    config = config_in(tmp_path)
    line = 'DIR/a.toml [server] log_file = "DIR/log/mail.log": its directory DIR/log '
    assert log_file_problems(config) == [f"{line}does not exist"]
    (tmp_path / "log").touch()
    assert log_file_problems(config) == [
        'DIR/a.toml [server] log_file = "DIR/log/mail.log": cannot be used: Not a directory'
    ]
    (tmp_path / "log").unlink()
    (tmp_path / "log" / "mail.log").mkdir(parents=True)
    assert log_file_problems(config) == [
        'DIR/a.toml [server] log_file = "DIR/log/mail.log": must be a file, not a directory'
    ]
    (tmp_path / "log" / "mail.log").rmdir()
    os.mkfifo(tmp_path / "log" / "mail.log")
    (told,) = log_file_problems(config)
    assert "must be a file" in told
    assert "a pipe" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.usefixtures("runnable")
def test_a_log_file_that_is_there_is_judged_itself() -> None:
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made).resolve()
        directory.chmod(0o755)
        config = config_in(directory, **{'user = "root"': 'user = "nobody"'})
        log = directory / "log"
        log.mkdir(mode=0o755)
        line = 'DIR/a.toml [server] log_file = "DIR/log/mail.log":'
        assert log_file_problems(config) == [f"{line} its directory DIR/log cannot be written by user nobody"]
        file = log / "mail.log"
        file.touch()
        file.chmod(0o644)
        assert log_file_problems(config) == [f"{line} cannot be written by user nobody"]
        # The administrator made it for the service, in a directory that is root's.
        os.chown(file, pwd.getpwnam("nobody").pw_uid, 0)
        assert log_file_problems(config) == []
        log.chmod(0o700)
        assert log_file_problems(config) == [f"{line} cannot be written by user nobody"]
