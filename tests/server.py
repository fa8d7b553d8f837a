"""A real `twistd mailserver` on loopback, made by the demonstration, for tests that need the whole."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner

from mailserver.auth.schemes import schemes
from mailserver.cli import main
from tests.command import run_process
from tests.preloaded import PRELOADED, ForkedProcess, Preloaded, can_do

ROOT = Path(__file__).resolve().parent.parent
OFFSETS = {
    "imap": 143,
    "imaps": 993,
    "pop3": 110,
    "pop3s": 995,
    "submission": 587,
    "submissions": 465,
    "lmtp": 24,
    "http": 80,
    "https": 443,
    "metrics": 90,
}
SPARE = (0, 1, 2)
START_TIME = 60
WORKERS = int(os.environ.get("TEST_WORKERS", "0"))
"""Of servers that do not say; one process starts sooner."""
TRANSPORT = os.environ.get("MAILSERVER_TRANSPORT", "auto")
"""`[server] transport` of every server: "stock" has all tests of whole servers hold on Twisted's own transports."""
TWISTD = str(Path(sys.executable).parent / "twistd")

HAND_OVER = """
import fcntl, os, sys
end = 1
while sys.argv[end].isdecimal():
    end += 1
given = [int(number) for number in sys.argv[1:end]]
apart = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100) for number in given]
for number in given:
    os.close(number)
for number, opened in enumerate(apart, 3):
    os.dup2(opened, number)
names = ":".join("mail" for _ in given)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=names)
os.execvp(sys.argv[end], sys.argv[end:])
"""
"""Starts a command as systemd does whose socket unit has these descriptors (sd_listen_fds(3))."""


SIMPLE_COMMANDS = (
    *("acme", "bans", "ca", "cert", "check", "clients", "exposures", "kick", "reload", "status", "tls", "who"),
    *("user add", "user disable", "user enable", "user list", "user password"),
)
"""Commands that neither fork nor run a reactor: as a process each takes half a second of a processor to start."""
_one_command = threading.Lock()

_templates: list[Path] = []
_started: list[subprocess.Popen[bytes] | ForkedProcess] = []


def make_demonstration(directory: Path, base: int, users: int = 0, *, in_directory: bool = False) -> None:
    """What `mailserver demo` makes, as a copy of what it has made once in this process.

    Its users are in a users file, which tests edit, or `in_directory`.
    """
    template = _template(users, in_directory=in_directory)
    taken = directory.stat().st_mode if directory.exists() else None
    shutil.copytree(template, directory, dirs_exist_ok=True, symlinks=True)
    if taken is not None:
        directory.chmod(taken & 0o7777)
    config = directory / "mailserver.toml"
    text = config.read_text().replace(str(template), str(directory))
    config.write_text(re.sub(r"(?m)^port = 10(\d+)$", lambda found: f"port = {base + int(found[1])}", text))


@functools.cache
def _template(users: int, *, in_directory: bool) -> Path:
    """A demonstration at ports from 10000, without a wait for the disk, with hashes that cost little."""
    place = Path(tempfile.mkdtemp(prefix="mailserver-tests-"))
    _templates.append(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        patch.setattr(schemes, "LIGHT", schemes.Argon2Cost(memory_kib=64, passes=1))
        arguments = ["demo", "--dir", str(place / "demo"), "--port-base", "10000", "--users", str(users)]
        done = CliRunner().invoke(main, arguments if in_directory else [*arguments, "--users-file"])
    assert done.exit_code == 0, done.output
    return place / "demo"


@functools.cache
def preloaded() -> Preloaded:
    """The one of this process."""
    return Preloaded()


def remove_templates() -> None:
    """What copies were made of."""
    for place in _templates:
        shutil.rmtree(place, ignore_errors=True)


def kill_all() -> None:
    """Those servers that are left; what is below them ends with them."""
    for process in _started:
        if process.poll() is None:
            process.kill()
            process.wait()


def free_port_base() -> int:
    """A base from which all ports of the demonstration are free on both loopback addresses."""
    for _ in range(200):
        base = random.randrange(12000, 30000)
        with contextlib.ExitStack() as opened:
            try:
                for offset in (*OFFSETS.values(), *SPARE):
                    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                        probe = opened.enter_context(socket.socket(family))
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((host, base + offset))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")


def free_ports(number: int) -> list[int]:
    """Ports that nobody has: above those of any `Server`, below those that the system gives to who connects."""
    found: list[int] = []
    for port in random.sample(range(31000, 32768), 1768):
        if len(found) == number:
            return found
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
    raise AssertionError("no free ports")


class Server:
    """Files under `dir`, a process once started."""

    def __init__(
        self,
        directory: Path,
        *,
        users: int = 0,
        edit: dict[str, str] | None = None,
        append: str = "",
        workers: int | None = None,
        follow: bool = False,
        preloaded: bool = PRELOADED,
        in_directory: bool = False,
    ) -> None:
        """`in_directory`: its users are in a directory, not in a users file. `edit` replaces text of the demonstration's configuration, `append` stands behind it.

        `preloaded`: forked as `tests.preloaded` says, unless it needs another command before twistd than its `can_do` has, or a PYTHONPATH of its own. `workers` other than WORKERS. `follow` certificates on disk without a reload. In `append`, {dir} is the directory, and {a}, {b}, {c} are ports that the demonstration does not use.
        """
        self.dir = directory
        self._preloaded = preloaded
        self.extra: dict[str, str] = {}
        """Environment of the process."""
        self.wrapper: list[str] = []
        """What stands before the command."""
        self.handed_over: list[socket.socket] = []
        """Listening sockets that it gets as from systemd."""
        self.base = free_port_base()
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.output_path = directory / "server.log"
        """Standard output and error."""
        self.log_path = self.output_path
        """Where the server was told to log."""
        directory.mkdir(parents=True, exist_ok=True)
        make_demonstration(directory, self.base, users, in_directory=in_directory)
        workers = WORKERS if workers is None else workers
        edits = {"[server]\n": f'[server]\nworkers = {workers}\ntransport = "{TRANSPORT}"\n'}
        if not follow:
            edits["[tls]\n"] = "[tls]\nfollow_files = false\n"
        for old, new in {**edits, **(edit or {})}.items():
            text = self.config.read_text()
            assert old in text, f"{old!r} is not in the configuration"
            self.config.write_text(text.replace(old, new))
        a, b, c = self.spare_ports
        self.config.write_text(self.config.read_text() + append.format(dir=self.dir, a=a, b=b, c=c))

    @property
    def config(self) -> Path:
        return self.dir / "mailserver.toml"

    @property
    def ca(self) -> Path:
        return self.dir / "ca.pem"

    @property
    def accounts(self) -> dict[str, str]:
        """User name -> password."""
        lines = (self.dir / "accounts.txt").read_text().splitlines()
        return dict(line.split(":", 1) for line in lines if line.strip())

    @property
    def numbers(self) -> list[int]:
        """Descriptors of what is handed over."""
        return [each.fileno() for each in self.handed_over]

    def user_of(self, domain: str) -> tuple[str, str]:
        """The first user of a domain, with the password."""
        return next(item for item in self.accounts.items() if item[0].endswith("@" + domain))

    @property
    def spare_ports(self) -> tuple[int, int, int]:
        """Ports that are free, for listeners of a test's own."""
        first, second, third = SPARE
        return self.base + first, self.base + second, self.base + third

    def port(self, protocol: str) -> int:
        return self.base + OFFSETS[protocol]

    def maildir(self, user: str) -> Path:
        local, domain = user.split("@")
        return self.dir / "mail" / domain / local / "Maildir"

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **self.extra}

    def run_cli(self, *arguments: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """The administrator's command: in this process, unless it forks or needs what the server's environment has."""
        if " ".join(arguments).startswith(SIMPLE_COMMANDS) and not self.extra:
            with _one_command, contextlib.chdir(self.dir):
                result = CliRunner().invoke(main, arguments, input=text, prog_name="mailserver")
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert not check or result.exit_code == 0, result.output
            return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)
        done = run_process(*arguments, text=text or "", directory=self.dir, extra=self.extra)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def command(self, *options: str) -> list[str]:
        """How twistd is called."""
        handed_over = [sys.executable, "-c", HAND_OVER, *map(str, self.numbers)] if self.handed_over else []
        return [
            *self.wrapper,
            *handed_over,
            TWISTD,
            *(options or ("-n", "--pidfile=")),
            "mailserver",
            "--config",
            str(self.config),
        ]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Start what `command()` gives, where it is to end soon: by a fault, or as a daemon behind it."""
        return subprocess.run(
            command,
            cwd=self.dir,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def start(self) -> Self:
        """Until every listener is ready; at other ports where somebody has taken one of ours meanwhile."""
        for _ in range(4):
            before, said = len(self.log), len(self.output)
            self.process = self._launch()
            _started.append(self.process)
            try:
                self.wait_for(r"ready: \d+ listeners", since=before)
            except AssertionError:
                if self.process.poll() is None or os.strerror(errno.EADDRINUSE) not in self.output[said:]:
                    raise
                self._move()
            else:
                return self
        raise AssertionError(f"no ports stay free:\n{self.output[-4000:]}")

    def _launch(self) -> subprocess.Popen[bytes] | ForkedProcess:
        command = self.command()
        with self.output_path.open("ab") as log:
            start = command.index(TWISTD)
            before = command[:start]
            if self._preloaded and can_do(before) and "PYTHONPATH" not in self.extra:
                single = re.search(r"^workers = 0$", self.config.read_text(), re.MULTILINE) is not None
                with open(os.devnull) as nothing:
                    files = [nothing.fileno(), log.fileno(), log.fileno()]
                    environment = self.environment()
                    return preloaded().start(
                        command[start:], self.dir, environment, files, zygote=not single, before=before
                    )
            return subprocess.Popen(
                command,
                cwd=self.dir,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.numbers,
            )

    def _move(self) -> None:
        before, self.base = self.base, free_port_base()
        moved = {str(before + offset): str(self.base + offset) for offset in (*OFFSETS.values(), *SPARE)}
        text = self.config.read_text()
        self.config.write_text(re.sub(r"\b(" + "|".join(moved) + r")\b", lambda found: moved[found[0]], text))

    def hang_up(self) -> str:
        """SIGHUP; what the log says of it."""
        before = len(self.log)
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(r"\] (reloaded|reload: something was not taken up) event=\S+\n", since=before)
        return self.log[before:]

    def replace(self, old: str, new: str) -> None:
        """Change the configuration."""
        text = self.config.read_text()
        assert old in text, f"{old!r} is not in the configuration"
        self.config.write_text(text.replace(old, new))

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_for(self, pattern: str, *, since: int = 0, seconds: float = START_TIME) -> re.Match[str]:
        """A line of the log; the process must live."""
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.log[since:])
            if found:
                return found
            assert self.process is not None
            assert self.process.poll() is None, f"the server ended:\n{self.log[-4000:]}"
            assert time.monotonic() < end, f"{pattern!r} did not come:\n{self.log[-4000:]}"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, and its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
