"""The servers under test, and the CPU and memory of all their processes."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mailserver.store.maildir.account.index_report import report
from tests.dovecot import Dovecot
from tests.server import Server

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SERVED = ("imap", "imaps", "pop3", "pop3s", "lmtp", "submission", "submissions")


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        found += _children(parent)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found.extend(int(child) for child in task.read_text().split())
        except OSError:
            continue
    return found


def cpu(pid: int) -> float:
    """Return seconds of CPU of a process, its living descendants (to the nanosecond) and its dead children (to a tick)."""
    total = 0.0
    for each in _tree(pid):
        try:
            total += time.clock_gettime(_cpu_clock(each))
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[13:15]) / TICK
    return total


def _cpu_clock(pid: int) -> int:
    """Return the CPU clock of a process with all its threads, as clock_getcpuclockid(3)."""
    return (~pid << 3) | 2


def memory(pid: int) -> int:
    """Return octets of memory of a process and its descendants: proportional set size (PSS)."""
    total = 0
    for each in _tree(pid):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
    return total


def worker_memory(pid: int) -> float:
    """Return octets that a worker of ours has for itself (private pages), in the mean; `pid` is the master."""
    zygotes = _children(pid)
    workers = [worker for zygote in zygotes for worker in _children(zygote)]
    assert workers, "the server has no workers"
    total = 0
    for each in workers:
        text = Path(f"/proc/{each}/smaps_rollup").read_text()
        total += sum(int(size) for size in re.findall(r"(?m)^Private_(?:Clean|Dirty): +(\d+) kB$", text)) * 1024
    return total / len(workers)


def available_memory() -> int:
    """Return octets of memory that the machine has available."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_ENOUGH = 20_000


@contextmanager
def room_for_inotify() -> Iterator[None]:
    """Allow an inotify instance for each process of a user, as Dovecot's documentation asks for, and restore the limit.

    By default there are 128: further sessions look at their mailbox every half minute, and cannot hibernate.
    """
    before = _INOTIFY.read_text()
    _INOTIFY.write_text(str(max(_ENOUGH, int(before))))
    try:
        yield
    finally:
        _INOTIFY.write_text(before)


class TestedServer:
    """A server: its name, its ports, its processes, and the Maildirs of its accounts."""

    name: str
    ports: dict[str, int]
    ca: Path

    def __init__(self, process: Any) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        """The main process."""
        return int(self.process.process.pid)

    def cpu(self) -> float:
        """Seconds of CPU since its start."""
        return cpu(self.pid)

    def memory(self) -> int:
        """Octets of memory in use."""
        return memory(self.pid)

    def maildir(self, user: str) -> Path:
        """The Maildir of a user."""
        raise AssertionError(user)

    def restart(self) -> None:
        """Stop it and start it again; its caches on disk stay."""
        raise AssertionError(self.name)

    def reload(self) -> None:
        """Reload the configuration."""
        raise AssertionError(self.name)

    def forget(self, user: str) -> None:
        """Drop every cache of an account, as if it had never been opened; the mail stays."""
        raise AssertionError(user)

    searches: int = 1
    """Text searches of one measurement."""

    def forget_texts(self, user: str) -> None:
        """Drop the text index of an account, if there is one."""

    def wait_for_texts(self, user: str, messages: int) -> None:
        """Wait until the text of so many messages is indexed, if there is an index, and the server is idle."""


class Mailserver(TestedServer):
    """`twistd mailserver` as the demonstration sets it up, with more users and higher limits."""

    name = "mailserver"
    searches = 20
    transport = "auto"

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.server = server
        self.ca = server.ca
        self.ports = {name: server.port(name) for name in SERVED}

    def maildir(self, user: str) -> Path:
        return self.server.maildir(user)

    def forget(self, user: str) -> None:
        self.server.stop()
        for pattern in ("mailserver-*", "dovecot-uidlist*"):
            for path in self.maildir(user).glob(pattern):
                path.unlink()
        self._start()

    def restart(self) -> None:
        self.server.stop()
        self._start()

    def reload(self) -> None:
        self.server.hang_up()

    def use_workers(self, workers: int) -> None:
        """Restart with a number of worker processes; 0 for one process that does everything."""
        self.server.stop()
        text = self.server.config.read_text()
        self.server.config.write_text(re.sub(r"(?m)^workers = \d+$", f"workers = {workers}", text))
        self._start()

    @contextmanager
    def sockets_kept(self) -> Iterator[None]:
        """Within this context IMAP over TLS is served on a socket that outlives the server, as one of systemd's."""
        self.server.stop()
        with socket.create_server(("127.0.0.1", self.ports["imaps"]), backlog=1024) as opened:
            self.server.handed_over = [opened]
            self._start()
            try:
                yield
            finally:
                self.server.stop()
                self.server.handed_over = []
        self._start()

    def _start(self) -> None:
        """Start, and wait until the child processes are ready: their CPU must not count for what is measured next."""
        self.server.start()
        for _ in range(100):
            before = self.cpu()
            time.sleep(0.1)
            if self.cpu() - before < 0.002:
                return
        raise AssertionError("the server does not become idle")

    def forget_texts(self, user: str) -> None:
        self.server.stop()
        for path in self.maildir(user).glob("mailserver-text*"):
            path.unlink()
        self._start()

    def wait_for_texts(self, user: str, messages: int) -> None:
        for _ in range(800):
            before = self.cpu()
            time.sleep(1.5)
            known = sum(mailbox.indexed or 0 for mailbox in report(str(self.maildir(user))).mailboxes)
            if known == messages and self.cpu() - before < 0.01:
                return
        raise AssertionError("the text index is not made")


class StockMailserver(Mailserver):
    """The same with stock transports. It has only the accounts that single operations need."""

    name = "mailserver, stock"
    transport = "stock"


class DovecotServer(TestedServer):
    """A Dovecot of the tests' own."""

    name = "Dovecot"

    def __init__(self, dovecot: Dovecot, ca: Path) -> None:
        super().__init__(dovecot)
        self.dovecot = dovecot
        self.ca = ca
        self.ports = dovecot.ports

    def maildir(self, user: str) -> Path:
        local, domain = user.split("@")
        return self.dovecot.root / domain / local / "Maildir"

    def forget(self, user: str) -> None:
        for pattern in ("dovecot*", ".*/dovecot.*"):
            for path in self.maildir(user).glob(pattern):
                path.unlink()

    def restart(self) -> None:
        self.dovecot.stop()
        self.dovecot.start()

    def reload(self) -> None:
        self.dovecot.doveadm("reload")

    @contextmanager
    def with_settings(self, text: str) -> Iterator[None]:
        """Within this context it runs with these settings after the others."""
        before = self.dovecot.config.read_text()
        self.dovecot.config.write_text(before + text)
        self.restart()
        try:
            yield
        finally:
            self.dovecot.config.write_text(before)
            self.restart()

    def sessions_in_processes(self) -> int:
        """Return the number of `imap` processes."""
        names = []
        for pid in _tree(self.pid):
            try:
                names.append(Path(f"/proc/{pid}/comm").read_text().strip())
            except OSError:
                continue
        return names.count("imap")
