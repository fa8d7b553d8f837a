"""A mail transfer agent of Debian that runs privately: its process, its files and its log."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.interop.debian_packages import library_path

USERS = {"postfix": 64101, "postdrop": 64102, "Debian-exim": 64103}
"""System users that the packages expect, with their ids. They exist in the processes' mount namespace alone."""
IN_NAMESPACE = 'mount --bind "$1" /etc/passwd; mount --bind "$2" /etc/group; shift 2; exec "$@"'
START_TIME = 20.0


class TransferAgent:
    """A process in the foreground, with all that it writes under `dir`, which other users can pass."""

    def __init__(self, package: Path, port: int) -> None:
        """`package`: where it is unpacked. `port` of SMTP on 127.0.0.1."""
        self.package = package
        self.port = port
        self.dir = Path(tempfile.mkdtemp(prefix="mailserver-mta-"))
        self.dir.chmod(0o755)
        self.output = self.dir / "output"
        self._process: subprocess.Popen[bytes] | None = None
        for name, line in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin\n"), ("group", "{0}:x:{1}:\n")):
            lines = "".join(line.format(*each) for each in USERS.items())
            (self.dir / name).write_text(Path(f"/etc/{name}").read_text() + lines)

    def command(self, *command: object) -> list[str]:
        """A command in the namespace."""
        files = (str(self.dir / "passwd"), str(self.dir / "group"))
        return ["unshare", "--mount", "sh", "-ec", IN_NAMESPACE, "sh", *files, *map(str, command)]

    @property
    def environment(self) -> dict[str, str]:
        """That of its programs."""
        return {"PATH": os.environ["PATH"], "LANG": "C", "LD_LIBRARY_PATH": library_path(self.package)}

    def run(self, *command: object, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to the end."""
        return subprocess.run(
            self.command(*command),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
        )

    def start_command(self, *command: object) -> None:
        """Start the process, and wait until it accepts connections."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(*command),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + START_TIME
        while True:
            assert self._process.poll() is None, self.log
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < end, self.log
                time.sleep(0.05)

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def start(self) -> None:
        """Start it."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it with all of its processes."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
