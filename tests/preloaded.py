"""Servers and commands forked from a process that has loaded their modules, which saves most of what a start costs.

A process of pytest starts one of these and sends it each command line of `twistd`. The fork becomes a child of pytest,
and runs twistd from its first line. A server with workers has a second fork beside it that becomes the zygote. Processes
that check passwords are forks of the server. Nothing else differs from a start by exec, which `tests.server.Server` does
for those that must be started so.

A second one forks the administrator's commands that have to be processes (`tests.command`).

python -m tests.preloaded DESCRIPTOR KIND PADDING
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = os.environ.get("TEST_PRELOADED", "1") != "0"
"""Whether servers and commands are forked from a process that has loaded their modules; "0" starts each by exec."""
MODULES = (
    "mailserver.auth.schemes.hash_process",
    "mailserver.tap",
    "mailserver.config.socket_rights",
    "mailserver.http.services",
    "mailserver.http.session",
    "mailserver.net.listeners.systemd_sockets",
    "mailserver.net.service.single_process",
    "mailserver.net.workers.master",
    "mailserver.problems",
    "mailserver.wiring.reload_check",
    "mailserver.wiring.services",
    "mailserver.zygote",
    "twisted.scripts._twistd_unix",
)
"""What the master, the zygote and a server without workers load at their start."""
COMMAND = "mailserver.cli"
COMMAND_MODULES = (
    COMMAND,
    "mailserver.auth.plugins",
    "mailserver.cli.address",
    "mailserver.cli.auth_trial",
    "mailserver.cli.directory_document",
    "mailserver.cli.user_mail",
    "mailserver.problems",
    "twisted.internet.task",
)
"""What the commands load that tests run most often."""
PADDING = "." * 1000
"""Room in the command line, for those of the forks."""
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x20000
ZYGOTE = "mailserver.zygote"
HASH_PROCESS = "mailserver.auth.schemes.hash_process"


class ForkedProcess:
    """A child process, with what `subprocess.Popen` has for one without pipes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
                    os.close(self._pidfd)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises: subprocess.TimeoutExpired."""
        if self.poll() is None:
            if not select.select([self._pidfd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("twistd", timeout or 0)
            self.poll()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Preloaded:
    """A running process that forks servers, for as long as this one lives."""

    def __init__(self, kind: str = "twistd") -> None:
        """`kind`: what is loaded and run, "twistd" or COMMAND."""
        self._lock = threading.Lock()
        self._connection, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.preloaded", str(theirs.fileno()), kind, PADDING]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, cwd=ROOT)

    def start(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        files: Sequence[int],
        *,
        zygote: bool = False,
        before: Sequence[str] = (),
    ) -> ForkedProcess:
        """Fork a server or command with these files as its standard input, output and errors.

        `zygote`: with a process beside it that it uses as its zygote. `before`: what stands before the command, and `can_do`.
        """
        request = [list(before), command, str(directory), dict(environment), zygote]
        with self._lock, adopting():
            send(self._connection, request, files)
            return ForkedProcess(int.from_bytes(read(self._connection, 4), "big"))


def can_do(before: Sequence[str]) -> bool:
    """Whether a fork can do what these words do, which stand before its command: enter a mount namespace, or make one."""
    match before:
        case [] | ["nsenter", "--target", _, "--mount"] | ["unshare", "--mount", "sh", "-ec", _, "sh"]:
            return True
    return False


def change_mounts(before: Sequence[str]) -> None:
    """Do what nsenter(1) and unshare(1) do at these words."""
    libc = ctypes.CDLL(None, use_errno=True)
    match before:
        case ["nsenter", _, target, _]:
            with open(f"/proc/{target}/ns/mnt") as namespace:
                assert libc.setns(namespace.fileno(), CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        case ["unshare", _, _, _, script, name]:
            assert libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["sh", "-ec", script, name, "true"], check=True)


@contextlib.contextmanager
def adopting() -> Any:
    """Orphans below this process become its children meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        assert libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


def read(connection: socket.socket, count: int) -> bytes:
    """So many octets. Raises: EOFError."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def send(connection: socket.socket, request: object, descriptors: Sequence[int]) -> None:
    """Send a request with open files."""
    data = json.dumps(request).encode()
    socket.send_fds(connection, [len(data).to_bytes(4, "big")], descriptors)
    connection.sendall(data)


def receive(connection: socket.socket, count: int) -> tuple[Any, list[int]] | None:
    """A request with so many open files; None when the sender has ended."""
    try:
        head, descriptors, _flags, _address = socket.recv_fds(connection, 4, count)
        return (json.loads(read(connection, int.from_bytes(head, "big"))), descriptors) if head else None
    except (EOFError, ConnectionError):
        return None


def set_command_line(words: Sequence[str]) -> None:
    """Have /proc/self/cmdline, and with it ps(1), say these words."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    line = b"".join(word.encode() + b"\0" for word in words)
    with open("/proc/self/mem", "wb", buffering=0) as memory:
        memory.seek(start)
        memory.write(line[: end - start - 1].ljust(end - start, b"\0"))


def serve(connection: socket.socket) -> Any:
    """Fork at each request; the request, in the process that is to run it. None when pytest has ended."""
    while received := receive(connection, 3):
        request, files = received
        (reading, writing), (waiting, held) = os.pipe(), os.pipe()
        middle = os.fork()
        if not middle:
            pid = os.fork()
            if pid:
                os.write(writing, pid.to_bytes(4, "big"))
                os._exit(0)
            for number in (held, writing, reading, connection.detach()):
                os.close(number)
            # The end of the process between makes this one a child of pytest, and closes the pipe.
            os.read(waiting, 1)
            os.close(waiting)
            for place, number in enumerate(files):
                os.dup2(number, place)
                os.close(number)
            return request
        for number in (held, waiting, writing, *files):
            os.close(number)
        os.waitpid(middle, 0)
        connection.sendall(os.read(reading, 4))
        os.close(reading)
    return None


def prepare_zygote() -> None:
    """Fork what becomes the zygote when this process starts it."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        become_zygote(theirs)
    theirs.close()
    spawn = os.posix_spawn

    def take(path: str, arguments: list[str], environment: Mapping[str, str], **how: Any) -> int:
        if ZYGOTE not in arguments:
            return spawn(path, arguments, environment, **how)
        os.posix_spawn = spawn
        outputs = {each[2]: each[1] for each in how["file_actions"] if each[0] == os.POSIX_SPAWN_DUP2}
        os.setpgid(pid, how["setpgroup"])
        with ours:
            send(ours, [arguments, dict(environment)], [int(arguments[-1]), outputs.get(1, 1), outputs.get(2, 2)])
        return pid

    os.posix_spawn = take  # type: ignore[assignment]


def become_zygote(connection: socket.socket) -> NoReturn:
    """Wait for the command line, and run it as a new process would."""
    received = receive(connection, 3)
    if received is None:
        os._exit(0)
    connection.close()
    (arguments, environment), (master, output, errors) = received
    nothing = os.open(os.devnull, os.O_RDONLY)
    number = int(arguments[-1])
    apart = [fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, 100) for given in (nothing, output, errors, master)]
    os.closerange(3, 100)
    for given, place in zip(apart, (0, 1, 2, number), strict=True):
        os.dup2(given, place)
        os.close(given)
    os.environ.clear()
    os.environ.update(environment)
    set_command_line(arguments)
    sys.argv = [ZYGOTE, arguments[-1]]
    importlib.import_module(ZYGOTE).main()
    raise SystemExit(0)


def fork_hash_processes() -> None:
    """Have this process, and those forked from it, fork where they would start a process that checks passwords."""
    spawn = os.posix_spawnp

    def take(path: str, arguments: list[str], environment: Mapping[str, str], **how: Any) -> int:
        if arguments[1:] != ["-P", "-m", HASH_PROCESS]:
            return spawn(path, arguments, environment, **how)
        pid = os.fork()
        if not pid:
            try:
                become_hash_process(arguments, environment, how["file_actions"])
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                # Whatever the server has not flushed yet is the server's.
                os._exit(0)
        return pid

    os.posix_spawnp = take  # type: ignore[assignment]


def become_hash_process(
    arguments: Sequence[str], environment: Mapping[str, str], file_actions: Sequence[tuple[int, ...]]
) -> None:
    """Keep of the server what exec would keep, and check passwords until the input ends."""
    gc.disable()
    # Which a process that has changed its user is no more, until it calls exec.
    assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for kind, *descriptors in file_actions:
        if kind == os.POSIX_SPAWN_DUP2:
            os.dup2(descriptors[0], descriptors[1])
        else:
            with contextlib.suppress(OSError):
                os.close(descriptors[0])
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    set_command_line(arguments)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    importlib.import_module(HASH_PROCESS).main()


def run_command(words: Sequence[str]) -> None:
    """Do as `python -m mailserver.cli` does with these words."""
    set_command_line([sys.executable, "-m", COMMAND, *words])
    sys.argv = [COMMAND, *words]
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    runpy.run_module(COMMAND, run_name="__main__", alter_sys=True)


def main() -> None:
    """Load the modules and serve; in each fork, run twistd or the command."""
    kind = sys.argv[2]
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    for module in COMMAND_MODULES if kind == COMMAND else MODULES:
        importlib.import_module(module)
    assert "twisted.internet.reactor" not in sys.modules, "all forks would share its descriptors"
    fork_hash_processes()
    gc.collect()
    gc.freeze()
    request = serve(connection)
    if request is None:
        return
    before, command, directory, environment, zygote = request
    change_mounts(before)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    if kind == COMMAND:
        run_command(command)
        return
    # The working directory, which neither twistd nor the zygote has.
    del sys.path[0]
    if zygote:
        prepare_zygote()
    set_command_line([sys.executable, *command])
    sys.argv = command
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
